//! The kernels: which, and where from.

/// A kernel of Debian's, by the archive that has it.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// By what it is named here, in documents and on the command line.
    pub name: &'static str,
    /// Path of the archive on a mirror.
    pub archive: &'static str,
    /// The suite. Those of security updates and backports have short lists of packages.
    pub suite: &'static str,
    /// The package that depends on the present one of that series.
    pub package: &'static str,
    /// Whether turn-bpf runs on it.
    pub is_supported: bool,
    /// Whether it is the oldest or the newest that turn-bpf runs on.
    pub is_at_an_end: bool,
    /// Whether it holds TC programs by links that end with their owner (6.6), and not by filters.
    pub has_tcx: bool,
}

/// From old to new. The newest is whatever Debian has backported last.
pub const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        archive: "debian-security",
        suite: "bullseye-security",
        package: "linux-image-cloud-amd64",
        is_supported: false,
        is_at_an_end: false,
        has_tcx: false,
    },
    Kernel {
        name: "6.1",
        archive: "debian-security",
        suite: "bookworm-security",
        package: "linux-image-cloud-amd64",
        is_supported: true,
        is_at_an_end: true,
        has_tcx: false,
    },
    Kernel {
        name: "6.12",
        archive: "debian-security",
        suite: "bookworm-security",
        package: "linux-image-6.12-cloud-amd64",
        is_supported: true,
        is_at_an_end: false,
        has_tcx: true,
    },
    Kernel {
        name: "newest",
        archive: "debian",
        suite: "trixie-backports",
        package: "linux-image-cloud-amd64",
        is_supported: true,
        is_at_an_end: true,
        has_tcx: true,
    },
];
