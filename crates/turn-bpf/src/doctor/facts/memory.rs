//! How much memory the maps take, and how much there may be.

use std::fs;
use std::path::{Path, PathBuf};

use turn_datapath::{Flow, FlowKey, PathMtu};

/// Memory in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// What the maps take.
    pub needed: u64,
    /// What is free, and of what. None where it cannot be told.
    pub free: Option<Free>,
    /// For how many flows.
    pub max_flows: u32,
}

/// What is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Free {
    /// In bytes.
    pub bytes: u64,
    /// The cgroup whose limit it is, or that it is the machine's.
    pub of: String,
}

impl Memory {
    /// For maps of this size, in this process's cgroup. Since 5.11 maps are charged to that of whoever makes them.
    pub fn gather(max_flows: u32) -> Self {
        let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let machine = available(&meminfo).map(|bytes| Free { bytes, of: "the machine".to_owned() });
        let free = limits(&cgroups, Path::new("/sys/fs/cgroup")).into_iter().chain(machine);
        Self { needed: footprint(max_flows), free: free.min_by_key(|free| free.bytes), max_flows }
    }
}

/// What the kernel charges for the maps: kernel/bpf/hashtab.c, which allocates all elements at once.
pub fn footprint(max_flows: u32) -> u64 {
    let flow = size_of::<Flow>();
    let key = size_of::<FlowKey>();
    let clients = max_flows.max(crate::object::FEWEST_CLIENTS);
    hash_table(max_flows, key, flow)
        + hash_table(max_flows.saturating_add(max_flows / 2), key, key)
        + hash_table(clients, key, size_of::<u32>())
        + hash_table(PATH_MTUS, key, size_of::<PathMtu>())
        + RING_BUFFER
}

fn hash_table(entries: u32, key: usize, value: usize) -> u64 {
    let element = HTAB_ELEM + key.next_multiple_of(8) + value.next_multiple_of(8);
    let buckets = u64::from(entries.next_power_of_two());
    u64::from(entries) * element as u64 + buckets * BUCKET
}

/// What is left below the limits of the cgroup and of those that it is in, of both versions.
fn limits(cgroups: &str, mount: &Path) -> Vec<Free> {
    let lines = cgroups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let mut found = Vec::new();
    for (controllers, path) in lines {
        let (root, limit, usage) = match controllers {
            "" => (mount.to_owned(), "memory.max", "memory.current"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                (mount.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes")
            }
            _ => continue,
        };
        let own = root.join(path.trim_start_matches('/'));
        let folders = own.ancestors().take_while(|folder| folder.starts_with(&root));
        found.extend(folders.filter_map(|folder| left_in(folder, limit, usage)));
    }
    found
}

fn left_in(folder: &Path, limit: &str, usage: &str) -> Option<Free> {
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    // `max`, or about 2^63 in the first version, means none.
    let limit = number(folder.join(limit)).filter(|limit| *limit < 1 << 60)?;
    let bytes = limit.saturating_sub(number(folder.join(usage))?);
    Some(Free { bytes, of: format!("the cgroup {}", folder.display()) })
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

// `struct htab_elem` and `struct bucket` of the kernel, on 64 bits.
const HTAB_ELEM: usize = 48;
const BUCKET: u64 = 16;
// As in the object's maps.
const PATH_MTUS: u32 = 16_384;
const RING_BUFFER: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_limit_of_all_counts() {
        let scratch = std::env::temp_dir().join(format!("turn-bpf-memory-{}", std::process::id()));
        let inner = scratch.join("system.slice/turn-bpf.service");
        fs::create_dir_all(&inner).unwrap();
        let write = |folder: &Path, limit: &str, usage: &str| {
            fs::write(folder.join("memory.max"), limit).unwrap();
            fs::write(folder.join("memory.current"), usage).unwrap();
        };
        write(&inner, "1000\n", "200\n");
        write(&scratch.join("system.slice"), "max\n", "5000\n");
        let found = limits("0::/system.slice/turn-bpf.service\n9:name=systemd:/\n", &scratch);
        fs::remove_dir_all(&scratch).unwrap();
        let [free] = &found[..] else { panic!("{found:?}") };
        assert_eq!(free.bytes, 800);
        assert!(free.of.ends_with("system.slice/turn-bpf.service"), "{free:?}");
    }

    #[test]
    fn what_the_machine_has() {
        let meminfo = "MemTotal:       24690000 kB\nMemAvailable:   20000 kB\n";
        assert_eq!(available(meminfo), Some(20_480_000));
        assert_eq!(available(""), None);
        assert!(Memory::gather(65_536).free.is_some());
    }
}
