//! turn-bpf is restarted or replaced with `--keep`, and calls do not notice.

mod adoption;
mod folders;
mod restarts;

use std::path::PathBuf;
use std::process::{Command, Output};

use turn_testkit::offload::{Offload, OffloadOptions};
use turn_testkit::scratch::ScratchFolder;

const CHANNEL: u16 = 0x4001;
const MODES: [&str; 3] = ["native", "tc", "generic"];
const BINARY: &str = env!("CARGO_BIN_EXE_turn-bpf");

/// A BPF filesystem that is not the machine's own: what runs in a namespace of the lab has a /sys of its own, in which none is mounted.
struct BpfFilesystem(ScratchFolder);

impl BpfFilesystem {
    fn mount() -> Self {
        let folder = ScratchFolder::new("bpf").unwrap();
        let mounted = Command::new("mount").args(["-t", "bpf", "bpf"]).arg(folder.path()).status().unwrap();
        assert!(mounted.success());
        Self(folder)
    }

    /// Where turn-bpf is to keep what it keeps.
    fn pins(&self) -> PathBuf {
        self.0.path().join("kept")
    }

    /// turn-bpf with `--keep`.
    fn options(&self) -> OffloadOptions {
        self.options_without_keep().daemon(&["--keep"])
    }

    fn options_without_keep(&self) -> OffloadOptions {
        OffloadOptions::new(BINARY).daemon(&["--pin-dir", self.pins().to_str().unwrap()])
    }

    /// `turn-bpf detach`.
    fn detach(&self, offload: &Offload) -> Output {
        let mut detach = offload.lab.server.command(BINARY);
        detach.args(["detach", "--pin-dir"]).arg(self.pins()).output().unwrap()
    }
}

impl Drop for BpfFilesystem {
    fn drop(&mut self) {
        let _stays_mounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// How a daemon ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Told,
    Killed,
}

fn end(offload: &mut Offload, how: End) {
    let daemon = offload.take_daemon();
    match how {
        End::Told => assert!(daemon.stop().unwrap().success()),
        End::Killed => daemon.kill().unwrap(),
    }
}
