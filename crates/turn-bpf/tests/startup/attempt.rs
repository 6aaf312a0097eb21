//! An attempt to run turn-bpf that is expected to fail.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

use turn_testkit::lab::Lab;
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;

use crate::BINARY;

const PATIENCE: Duration = Duration::from_secs(20);

/// How an attempt ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The exit code.
    pub code: i32,
    /// What was written on standard error.
    pub message: String,
}

impl Refusal {
    /// Checks the exit code, and that the message has each of these parts.
    pub fn expect(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{}", self.message);
        for part in parts {
            assert!(self.message.contains(part), "{part:?} is not in {:?}", self.message);
        }
        assert!(!self.message.contains("panicked"), "{}", self.message);
    }
}

/// Runs `turn-bpf run` with a control socket of its own in the server's namespace, to its end. Nothing may be attached then.
pub fn run(lab: &Lab, arguments: &[&str]) -> Refusal {
    let before = attached(lab);
    let folder = ScratchFolder::new("attempt").unwrap();
    let mut command = lab.server.command(BINARY);
    command.arg("run").arg("--control").arg(folder.path().join("control.sock")).args(arguments);
    let refusal = to_its_end(command);
    assert_eq!(attached(lab), before, "{refusal:?}");
    assert!(!folder.path().join("control.sock").exists(), "the control socket stays: {refusal:?}");
    refusal
}

/// Runs a command to its end.
pub fn to_its_end(mut command: Command) -> Refusal {
    let folder = ScratchFolder::new("attempt").unwrap();
    let path = folder.path().join("log");
    let log = File::create(&path).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut process = Process::spawn(&mut command).unwrap();
    let status = process.wait(PATIENCE).unwrap();
    let message = fs::read_to_string(&path).unwrap();
    let status = status.unwrap_or_else(|| panic!("it runs: {message}"));
    Refusal { code: status.code().unwrap_or_else(|| panic!("{status}: {message}")), message }
}

/// What is attached to the server's interfaces.
pub fn attached(lab: &Lab) -> Vec<String> {
    let interfaces = ["srv0", "srv1"].iter();
    interfaces.flat_map(|interface| lab.server.attached(interface).unwrap()).collect()
}
