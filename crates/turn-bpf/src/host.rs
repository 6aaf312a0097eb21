//! What this machine's kernel is, and what it lets this process do.

use std::{fmt, fs, io, path::Path};

use aya::programs::{ProgramInfo, SchedClassifier, tc::TcAttachType};

use crate::interfaces::Interface;

/// The oldest kernel that turn-bpf is tested on (`cargo xtask vm`). What it calls came with 5.18 (`bpf_xdp_load_bytes`), but verifiers
/// differ in what they see.
pub const OLDEST_KERNEL: KernelRelease = KernelRelease { major: 6, minor: 1 };

/// The first kernel with tcx, which holds TC programs by links that end with their owner.
pub const FIRST_WITH_TCX: KernelRelease = KernelRelease { major: 6, minor: 6 };

/// Where the kernel shows the types that it was built with.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// A kernel's version, as far as features follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelRelease {
    /// 6 in 6.12.
    pub major: u32,
    /// 12 in 6.12.
    pub minor: u32,
}

impl KernelRelease {
    /// The running kernel's, or `None` if it cannot be told.
    pub fn running() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
    }

    /// Reads `uname -r`: `6.1.0-35-amd64`, `6.18-rc3`, `5.15.0+`.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
        Some(Self { major: numbers.next()??, minor: numbers.next()?? })
    }
}

impl fmt::Display for KernelRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Whether the kernel shows its types.
pub fn has_btf() -> bool {
    Path::new(BTF_PATH).exists()
}

/// What this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privileges {
    /// The effective capabilities, one bit each.
    pub effective: u64,
    /// Whether its user namespace is the machine's own. The capabilities of any other do not count for BPF.
    pub is_initial_user_namespace: bool,
}

impl Privileges {
    /// This process's.
    pub fn of_this_process() -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "no CapEff in /proc/self/status");
        Ok(Self {
            effective: parse_effective(&status).ok_or_else(malformed)?,
            // A kernel without user namespaces has no such file, and everybody is in the initial one.
            is_initial_user_namespace: fs::read_to_string("/proc/self/uid_map")
                .map_or(true, |map| is_identity(&map)),
        })
    }

    /// Which of the capabilities that turn-bpf needs are missing, by name. None in the user namespace of a container
    /// counts.
    pub fn missing(&self) -> Vec<&'static str> {
        let has = |capability: u32| self.is_initial_user_namespace && self.effective >> capability & 1 == 1;
        // CAP_SYS_ADMIN stood for these two before 5.8, and still does: bpf_capable() and perfmon_capable() in
        // include/linux/capability.h.
        let needed = [
            ("CAP_BPF", has(CAP_BPF) || has(CAP_SYS_ADMIN)),
            ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
            ("CAP_PERFMON", has(CAP_PERFMON) || has(CAP_SYS_ADMIN)),
        ];
        needed.into_iter().filter(|(_, is_there)| !is_there).map(|(name, _)| name).collect()
    }
}

/// What is known about a BPF program of somebody, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedProgram {
    /// Its id.
    pub id: u32,
    /// Its name, up to 15 characters of it. Known only with CAP_SYS_ADMIN, and if it has one.
    pub name: Option<String>,
    /// A process that holds it. `None` if it is only pinned or attached, or if we may not look.
    pub holder: Option<Process>,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its command name.
    pub command: String,
}

impl LoadedProgram {
    /// Looks up the program with this id.
    pub fn by_id(id: u32) -> Self {
        Self { id, name: program_name(id), holder: holder_of_program(id) }
    }

    /// Whether it is turn-bpf's own XDP program.
    pub fn is_ours(&self) -> bool {
        self.name.as_deref().is_some_and(|name| [OUR_XDP_PROGRAM, OUR_GENERIC_PROGRAM].contains(&name))
    }

    /// turn-bpf's own ingress program at TC on the interface with this name, if it is there. Told only to who has
    /// CAP_SYS_ADMIN, from 6.6 on.
    pub fn ours_at_tc(interface: &str) -> Option<Self> {
        let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).ok()?;
        let is_ours = |program: &ProgramInfo| {
            program.name_as_str().is_some_and(|name| !name.is_empty() && OUR_TC_PROGRAM.starts_with(name))
        };
        programs.iter().find(|program| is_ours(program)).map(|program| Self::by_id(program.id()))
    }
}

impl fmt::Display for LoadedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (id {}", self.id)?,
            None => write!(f, "id {} (name unknown", self.id)?,
        }
        match &self.holder {
            Some(Process { pid, command }) => write!(f, ", held by {command}, pid {pid})"),
            None => f.write_str(")"),
        }
    }
}

/// The name of turn-bpf's ingress program for TC, of which the kernel keeps 15 characters.
pub const OUR_TC_PROGRAM: &str = "turn_bpf_ingress";
/// The name of turn-bpf's XDP program.
pub const OUR_XDP_PROGRAM: &str = "turn_bpf_xdp";
/// The same for generic mode.
pub const OUR_GENERIC_PROGRAM: &str = "turn_bpf_xdpskb";

/// Whether a program of this name is held by another process than this one. Told only to who has CAP_SYS_ADMIN.
pub fn is_held_by_another(name: &str) -> bool {
    let named = aya::programs::loaded_programs().filter_map(Result::ok);
    // The kernel keeps 15 characters.
    let mut named = named.filter(|program| {
        program.name_as_str().is_some_and(|kept| !kept.is_empty() && name.starts_with(kept))
    });
    named
        .any(|program| holder_of_program(program.id()).is_some_and(|holder| holder.pid != std::process::id()))
}

fn program_name(id: u32) -> Option<String> {
    let program =
        aya::programs::loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    program.name_as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// The first process found with a file descriptor of that program, or of a link of it.
fn holder_of_program(id: u32) -> Option<Process> {
    let pids = fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.into_iter().find_map(|pid: u32| {
        let mut descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.filter_map(Result::ok);
        let holds = descriptors.any(|descriptor| {
            fs::read_to_string(descriptor.path()).is_ok_and(|fdinfo| is_of_program(&fdinfo, id))
        });
        let command =
            || fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
        holds.then(|| Process { pid, command: command() })
    })
}

/// Reads the fdinfo of a BPF program or link: `prog_id:\t37`.
fn is_of_program(fdinfo: &str, id: u32) -> bool {
    fdinfo
        .lines()
        .any(|line| line.strip_prefix("prog_id:").and_then(|value| value.trim().parse().ok()) == Some(id))
}

/// The driver's name by sysfs, unless sysfs shows another network namespace than ours: then its interface of that name,
/// if it has one, is a different one.
pub fn hardware_driver(interface: &Interface) -> Option<String> {
    let folder = Path::new("/sys/class/net").join(&interface.name);
    let attribute = |name| fs::read_to_string(folder.join(name)).ok();
    let is_same_index = attribute("ifindex")?.trim().parse() == Ok(interface.ifindex);
    let is_same_mac = interface.mac.map(colon_separated).as_deref() == Some(attribute("address")?.trim());
    let driver = fs::read_link(folder.join("device/driver")).ok()?;
    let name = driver.file_name()?.to_str()?.to_owned();
    (is_same_index && is_same_mac).then_some(name)
}

fn colon_separated(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn parse_effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Whether a `uid_map` maps every user to itself, as in the initial user namespace.
fn is_identity(uid_map: &str) -> bool {
    uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

// include/uapi/linux/capability.h
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases() {
        let cases = [
            ("6.18.44-fc-v782\n", Some((6, 18))),
            ("6.1.0-35-amd64", Some((6, 1))),
            ("6.18-rc3", Some((6, 18))),
            ("5.15+", Some((5, 15))),
            ("6", None),
            ("", None),
            ("next-20260101", None),
        ];
        for (release, expected) in cases {
            let expected = expected.map(|(major, minor)| KernelRelease { major, minor });
            assert_eq!(KernelRelease::parse(release), expected, "{release:?}");
        }
        assert!(KernelRelease { major: 5, minor: 9 } < OLDEST_KERNEL);
        assert!(KernelRelease { major: 6, minor: 12 } > OLDEST_KERNEL);
    }

    #[test]
    fn capabilities_that_are_missing() {
        let bit = |capability: u32| 1 << capability;
        let three = bit(CAP_BPF) | bit(CAP_NET_ADMIN) | bit(CAP_PERFMON);
        let cases: [(u64, bool, &[&str]); 6] = [
            (0, true, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]),
            (three, true, &[]),
            (bit(CAP_SYS_ADMIN), true, &["CAP_NET_ADMIN"]),
            (bit(CAP_SYS_ADMIN) | bit(CAP_NET_ADMIN), true, &[]),
            (bit(CAP_BPF) | bit(CAP_NET_ADMIN), true, &["CAP_PERFMON"]),
            (u64::MAX, false, &["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]),
        ];
        for (effective, is_initial_user_namespace, missing) in cases {
            let privileges = Privileges { effective, is_initial_user_namespace };
            assert_eq!(privileges.missing(), missing, "{effective:#x}");
        }
    }

    #[test]
    fn addresses_as_sysfs_writes_them() {
        assert_eq!(colon_separated([2, 0xfc, 0, 0, 0, 1]), "02:fc:00:00:00:01");
    }

    #[test]
    fn effective_capabilities_are_read_from_the_status() {
        let status = "Name:\tx\nCapPrm:\t0000000000000001\nCapEff:\t000001fffeffffff\nCapBnd:\t0\n";
        assert_eq!(parse_effective(status), Some(0x1fffeffffff));
        assert_eq!(parse_effective("Name:\tx\n"), None);
    }

    #[test]
    fn the_initial_user_namespace_maps_everybody_to_themselves() {
        assert!(is_identity("         0          0 4294967295\n"));
        assert!(!is_identity("         0       1000          1\n"));
    }

    #[test]
    fn a_descriptor_names_its_program() {
        let link = "pos:\t0\nlink_type:\txdp\nlink_id:\t7\nprog_id:\t37\nifindex:\t4\n";
        assert!(is_of_program(link, 37));
        assert!(!is_of_program(link, 7));
        assert!(!is_of_program(link, 3));
    }

    #[test]
    fn a_program_is_shown_with_what_is_known() {
        let nameless = LoadedProgram { id: 12, name: None, holder: None };
        assert_eq!(nameless.to_string(), "id 12 (name unknown)");
        let holder = Some(Process { pid: 812, command: "xdp-filter".into() });
        let named = LoadedProgram { id: 12, name: Some("xdp_dispatcher".into()), holder };
        assert_eq!(named.to_string(), "xdp_dispatcher (id 12, held by xdp-filter, pid 812)");
    }
}
