//! Programs of two instructions that let everything pass, attached through bpf(2). They are written out here since nothing else in the
//! test bed needs a BPF loader.

use std::ffi::{CString, c_long};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{SYS_bpf, if_nametoindex, syscall};

const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_QUERY: c_long = 16;
const BPF_LINK_CREATE: c_long = 28;
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_TCX_EGRESS: u32 = 47;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
const XDP_PASS: i32 = 2;
const TCX_NEXT: i32 = -1;
const TCX_PASS: i32 = 0;
/// The program knows of frames in several parts, so that the link may have any MTU.
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// `union bpf_attr` for BPF_PROG_LOAD, as far as it is needed.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// `union bpf_attr` for BPF_LINK_CREATE, as far as it is needed.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` for BPF_PROG_QUERY, as far as it is needed.
#[repr(C)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

/// The name that the kernel knows the program by.
pub const NAME: &str = "tb_let_pass";

/// Attaches to an interface of the calling thread's network namespace, until the returned link is closed.
pub(super) fn attach(interface: &str, mode: XdpMode) -> io::Result<OwnedFd> {
    let target_ifindex = index_of(interface)?;
    let program = load(BPF_PROG_TYPE_XDP, XDP_PASS)?;
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex,
        attach_type: BPF_XDP,
        flags: match mode {
            XdpMode::Native => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
        },
    };
    open(BPF_LINK_CREATE, &attributes)
}

/// A program at the egress of an interface (tcx), beside others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EgressProgram {
    /// The first of all, and then the others.
    First,
    /// The last of all.
    Last,
    /// The first and only one: it lets everything pass, and those behind it see nothing.
    Only,
}

/// Attaches to what leaves by an interface of the calling thread's network namespace, until the returned link is closed.
pub(super) fn attach_egress(interface: &str, program: EgressProgram) -> io::Result<OwnedFd> {
    let target_ifindex = index_of(interface)?;
    let (flags, verdict) = match program {
        EgressProgram::First => (BPF_F_BEFORE, TCX_NEXT),
        EgressProgram::Last => (BPF_F_AFTER, TCX_NEXT),
        EgressProgram::Only => (BPF_F_BEFORE, TCX_PASS),
    };
    let program = load(BPF_PROG_TYPE_SCHED_CLS, verdict)?;
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex,
        attach_type: BPF_TCX_EGRESS,
        flags,
    };
    open(BPF_LINK_CREATE, &attributes)
}

/// How many programs look at what comes in or leaves by an interface of the calling thread's network namespace (tcx; none
/// before 6.6).
pub(super) fn tcx_programs(interface: &str) -> io::Result<u32> {
    Ok(programs_at(interface, BPF_TCX_INGRESS)? + programs_at(interface, BPF_TCX_EGRESS)?)
}

fn programs_at(interface: &str, attach_type: u32) -> io::Result<u32> {
    let mut attributes = ProgQuery {
        target_ifindex: index_of(interface)?,
        attach_type,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: 0,
        prog_cnt: 0,
        padding: 0,
    };
    match bpf(BPF_PROG_QUERY, &raw mut attributes) {
        Ok(_) => Ok(attributes.prog_cnt),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(0),
        Err(error) => Err(error),
    }
}

fn index_of(interface: &str) -> io::Result<u32> {
    let name = CString::new(interface)?;
    // SAFETY: `name` is a valid C string for the length of the call.
    match unsafe { if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn load(prog_type: u32, verdict: i32) -> io::Result<OwnedFd> {
    // mov64 r0, verdict; exit. The immediate operand is in the upper half of the instruction.
    let instructions: [u64; 2] = [0xb7 | u64::from(verdict as u32) << 32, 0x95].map(u64::to_le);
    let mut prog_name = [0; 16];
    prog_name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    let attributes = ProgLoad {
        prog_type,
        insn_cnt: instructions.len() as u32,
        insns: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: if prog_type == BPF_PROG_TYPE_XDP { BPF_F_XDP_HAS_FRAGS } else { 0 },
        prog_name,
    };
    open(BPF_PROG_LOAD, &attributes)
}

/// A command that returns a new file descriptor.
fn open<T>(command: c_long, attributes: &T) -> io::Result<OwnedFd> {
    let fd = bpf(command, attributes)?;
    // SAFETY: both commands that come here return a descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn bpf<T>(command: c_long, attributes: *const T) -> io::Result<c_long> {
    // SAFETY: `attributes` is a prefix of union bpf_attr of the given size, and what it points to outlives the call.
    let result = unsafe { syscall(SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
