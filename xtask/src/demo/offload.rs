//! turn-bpf in the server's namespace.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;
use turn_testkit::lab::Lab;
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;

use crate::interrupt;

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running `turn-bpf run`.
#[derive(Debug)]
pub struct Offload<'a> {
    pub process: Process,
    lab: &'a Lab,
    binary: PathBuf,
    folder: ScratchFolder,
}

impl<'a> Offload<'a> {
    /// Attaches it to the server's interfaces and waits until it says that it is ready.
    pub fn start(lab: &'a Lab, binary: &Path) -> Result<Self> {
        let folder = ScratchFolder::new("offload")?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = lab.server.command(binary);
        command.arg("run").args(lab.interfaces()).arg("--control").arg(folder.path().join("control.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process::spawn(&mut command).context("cannot run turn-bpf")?;
        let stdout = process.child().stdout.take().context("turn-bpf's standard output")?;
        let (said_ready, ready) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ready") {
                    let _nobody_waits = said_ready.send(());
                }
            }
        });
        let mut offload = Self { process, lab, binary: binary.into(), folder };
        offload.wait_until(&ready)?;
        Ok(offload)
    }

    /// Its status document.
    pub fn status(&self) -> Result<Value> {
        let mut command = self.lab.server.command(&self.binary);
        command.args(["status", "--json", "--control"]).arg(self.folder.path().join("control.sock"));
        let text = crate::command::output(&mut command)?;
        serde_json::from_str(&text).with_context(|| format!("turn-bpf status --json said {text}"))
    }

    /// Detaches it.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop(Signal::INT, Duration::from_secs(10))?;
        if !status.success() {
            bail!("turn-bpf ended with {status}:\n{}", self.log());
        }
        Ok(())
    }

    fn wait_until(&mut self, ready: &mpsc::Receiver<()>) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while ready.recv_timeout(Duration::from_millis(50)).is_err() {
            interrupt::check()?;
            if let Some(status) = self.process.ended()? {
                bail!("turn-bpf ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("turn-bpf does not get ready:\n{}", self.log());
            }
        }
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}
