//! A fresh Debian 12 with its own systemd, in a container whose network is a namespace of the lab.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use turn_testkit::lab::Namespace;
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;

use crate::command::{output, run};
use crate::interrupt;

/// What makes it and runs it.
pub const WANTED: [(&str, &[&str]); 3] = [
    ("debootstrap", &["debootstrap"]),
    ("systemd-nspawn", &["systemd-container"]),
    ("nsenter", &["util-linux"]),
];

const RELEASE: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running Debian.
pub struct Debian {
    container: Process,
    /// Its process 1, as seen from here.
    init: u32,
    folder: ScratchFolder,
}

impl Debian {
    /// Fetches it, and boots it in `network`.
    pub fn boot(network: &Namespace) -> Result<Self> {
        let folder = ScratchFolder::new("debian")?;
        let tree = folder.path().join("root");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap.args(["--variant=minbase", "--include=systemd,systemd-sysv,dbus", RELEASE]);
        run(debootstrap.arg(&tree).arg(MIRROR)).context("a fresh Debian")?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new("systemd-nspawn");
        command.args(["--quiet", "--register=no", "--keep-unit", "--console=pipe", "--boot", "--directory"]);
        command.arg(&tree).arg(format!("--network-namespace-path=/run/netns/{}", network.name()));
        // What an administrator gives to a container that is to load BPF programs.
        command.args([
            "--capability=CAP_BPF,CAP_NET_ADMIN,CAP_PERFMON",
            "--system-call-filter=bpf perf_event_open",
        ]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let container = Process::spawn(&mut command).context("systemd-nspawn")?;
        let mut debian = Self { container, init: 0, folder };
        debian.wait_until("systemd runs", |debian| {
            debian.init = child_of(debian.container.id()).unwrap_or_default();
            let state = debian.output("systemctl", &["is-system-running"]);
            Ok(debian.init != 0 && state.is_ok_and(|state| state.trim() == "running"))
        })?;
        Ok(debian)
    }

    /// The path of a file of it, as seen from here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join("root").join(inside.trim_start_matches('/'))
    }

    /// Runs a program in it to its end; it has to succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        run(self.command(program).args(arguments))
    }

    /// The same, and returns its standard output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(self.command(program).args(arguments))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--all",
            "--target",
            &self.init.to_string(),
            "--",
            "/usr/bin/env",
            "--ignore-environment",
        ]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"]);
        command.arg(program);
        command
    }

    /// Waits for something that happens in it.
    pub fn wait_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            interrupt::check()?;
            if let Some(status) = self.container.ended()? {
                bail!("the container ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("in vain: {what}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Every file and folder, but for those of packages, logs and the system's own state.
    pub fn files(&self) -> Result<Vec<String>> {
        const OTHERS: [&str; 12] = [
            "/boot",
            "/dev",
            "/proc",
            "/run",
            "/sys",
            "/tmp",
            "/var/cache",
            "/var/lib/dpkg",
            "/var/lib/systemd",
            "/var/log",
            "/etc/group-",
            "/etc/passwd-",
        ];
        let listed = self.output("find", &["/", "-xdev", "-printf", "%p\\n"])?;
        let is_its = |path: &&str| {
            !OTHERS.iter().any(|other| {
                path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        let mut files: Vec<String> = listed.lines().filter(is_its).map(str::to_owned).collect();
        files.sort_unstable();
        Ok(files)
    }

    fn log(&self) -> String {
        let journal = self.output("journalctl", &["--no-pager", "--lines=40"]).unwrap_or_default();
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default() + &journal
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        // Taken as an order to power off.
        let _killed_otherwise = self.container.stop(Signal::TERM, PATIENCE);
    }
}

fn child_of(process: u32) -> Option<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    fs::read_to_string(Path::new(&path)).ok()?.split_whitespace().next()?.parse().ok()
}
