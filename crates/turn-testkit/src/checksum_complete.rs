//! A run of a TC program on a packet whose sum the device has made (`CHECKSUM_COMPLETE`). The kernel compares that sum with the
//! packet afterwards: a receiver behind a virtual link believes it.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libc::{SYS_bpf, c_long, syscall};

const BPF_PROG_TEST_RUN: c_long = 10;
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;

/// `union bpf_attr` for BPF_PROG_TEST_RUN.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs the program, and returns its verdict.
///
/// # Errors
///
/// `EBADMSG` where the sum no longer fits the packet. `EINVAL` from kernels that cannot run such a packet, before 6.16.
pub fn run(program: BorrowedFd<'_>, frame: &[u8], context: &[u8]) -> io::Result<u32> {
    let mut attributes = TestRun {
        prog_fd: program.as_raw_fd() as u32,
        data_size_in: frame.len() as u32,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        ctx_size_in: context.len() as u32,
        ctx_in: context.as_ptr() as u64,
        flags: BPF_F_TEST_SKB_CHECKSUM_COMPLETE,
        ..TestRun::default()
    };
    let size = size_of::<TestRun>();
    // SAFETY: `attributes` is a prefix of union bpf_attr of the given size, which the kernel writes the verdict to; what it
    // points to outlives the call.
    let result = unsafe { syscall(SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes.retval) }
}
