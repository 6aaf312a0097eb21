//! What a killed process left behind: its namespaces and its folders carry its process id in their names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

/// Removes the namespaces of processes that are gone, with all that runs in them, and their folders.
pub fn remove() {
    for (name, _) in orphans(Path::new("/run/netns")) {
        remove_namespace(&name);
    }
    for (_, path) in orphans(&std::env::temp_dir()) {
        let _gone_already = fs::remove_dir_all(path);
    }
}

fn orphans(folder: &Path) -> Vec<(String, PathBuf)> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let owner = owner(&name)?;
        (!Path::new(&format!("/proc/{owner}")).exists()).then(|| (name, entry.path()))
    });
    names.collect()
}

/// Ends every process in the namespace, then removes it. Nothing is reported: two may do this at once.
pub(super) fn remove_namespace(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        let pids = String::from_utf8_lossy(&output.stdout)
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .filter(|pid| *pid != std::process::id() as i32)
            .filter_map(Pid::from_raw)
            .collect::<Vec<_>>();
        for pid in pids {
            let _gone_already = kill_process(pid, Signal::KILL);
        }
    }
    drop(Command::new("ip").args(["netns", "delete", name]).output());
}

fn owner(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("tb-")?.split_once('-')?;
    let (number, _role) = rest.split_once('-')?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_names_have_an_owner() {
        assert_eq!(owner("tb-12-3-server"), Some(12));
        for other in ["tb-12-server", "tb--1-server", "lab-12-3-server", "tb-x-3-server"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }
}
