//! Of the kernel, and of what it has been given.

use super::super::facts::{BpfFilesystem, Facts, Jit};
use super::super::{Check, Group};
use crate::host::{self, FIRST_WITH_TCX, OLDEST_KERNEL};

/// All of these.
pub fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        kernel_version(facts),
        btf(facts),
        jit(facts),
        lockdown(facts),
        memory(facts),
        socket_reports(facts),
        bpf_filesystem(facts),
    ]
}

fn kernel_version(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("kernel_version");
    match facts.kernel {
        None => check.warn_only("the kernel's version cannot be told"),
        Some(kernel) if kernel < OLDEST_KERNEL => check.fail(
            format!("{kernel}; turn-bpf needs {OLDEST_KERNEL} or newer, whose verifier takes its programs"),
            format!("install a kernel of version {OLDEST_KERNEL} or newer"),
        ),
        Some(kernel) if kernel < FIRST_WITH_TCX => {
            check.pass(format!("{kernel}; has no tcx yet, so that clsact holds the egress program"))
        }
        Some(kernel) => check.pass(format!("{kernel}; {OLDEST_KERNEL} or newer is needed")),
    }
}

fn btf(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("btf");
    if facts.has_btf {
        check.pass(format!("the kernel shows its types at {}", host::BTF_PATH))
    } else {
        check.fail(
            format!("{} is missing, and with it the types by which programs are loaded", host::BTF_PATH),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are",
        )
    }
}

fn jit(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("jit");
    let mend = "sysctl -w net.core.bpf_jit_enable=1";
    match facts.jit {
        Jit::On => check.pass("the kernel compiles BPF programs"),
        Jit::Off => check.warn("the kernel interprets BPF programs, which is several times slower", mend),
        Jit::Debugging => check.warn("the kernel writes all BPF programs that it compiles to its log", mend),
        Jit::Untold => {
            check.skip("net.core.bpf_jit_enable is shown in the machine's first network namespace only")
        }
    }
}

/// Lockdown for confidentiality denies BPF_READ: turn-bpf reads a device's index in the tracepoints of drivers' losses.
fn lockdown(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("lockdown");
    match facts.lockdown.as_deref() {
        None => check.pass("the kernel has none"),
        Some("confidentiality") => check.warn(
            "confidentiality: BPF may not read the kernel's memory, so that turn-bpf cannot see a driver throw away what it \
             was given, and would go on giving",
            "boot with lockdown=integrity, or without",
        ),
        Some(mode) => check.pass(format!("{mode}; it denies nothing that turn-bpf needs")),
    }
}

fn memory(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("memory");
    let memory = &facts.memory;
    let needed = format!("the maps take {} for --max-flows {}", mebibytes(memory.needed), memory.max_flows);
    match &memory.free {
        None => check.skip(format!("{needed}; what is free cannot be told")),
        Some(free) if free.bytes >= memory.needed => {
            check.pass(format!("{needed}; {} has {} left", free.of, mebibytes(free.bytes)))
        }
        Some(free) => {
            let flows = u64::from(memory.max_flows).saturating_mul(free.bytes) / memory.needed.max(1);
            check.warn(
                format!(
                    "{needed}, but {} has {} left: it would not start here",
                    free.of,
                    mebibytes(free.bytes)
                ),
                format!("turn-bpf run --max-flows {}, or more memory (MemoryMax= of the service)", flows / 2),
            )
        }
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

fn socket_reports(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("socket_reports");
    if facts.server.sockets_are_told {
        check.pass("the kernel tells when a relay socket is closed (CONFIG_INET_UDP_DIAG)")
    } else {
        check.warn(
            "the kernel does not tell when a relay socket is closed: what ends without a word on the wire is noticed one \
             lease later",
            "modprobe udp_diag; or a kernel with CONFIG_INET_UDP_DIAG",
        )
    }
}

fn bpf_filesystem(facts: &Facts) -> Check {
    let check = Group::Kernel.check_host("bpf_filesystem");
    let why = "without it programs cannot be kept from one turn-bpf to the next (--keep); all else works";
    match facts.bpf_filesystem {
        BpfFilesystem::Writable => check.pass("mounted at /sys/fs/bpf, and writable"),
        BpfFilesystem::Absent => check.warn(
            format!("not mounted at /sys/fs/bpf; {why}"),
            "mount -t bpf bpf /sys/fs/bpf",
        ),
        BpfFilesystem::ReadOnly => check.warn(
            format!("mounted at /sys/fs/bpf, but not writable here; {why}"),
            "run as root; in a service, ProtectKernelTunables=no (with it, systemd makes the folder read-only)",
        ),
    }
}
