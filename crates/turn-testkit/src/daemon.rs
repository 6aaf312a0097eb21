//! turn-bpf as its users meet it: the binary, in a namespace of the lab, and what its commands print.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::lab::Namespace;
use crate::process::Process;
use crate::scratch::ScratchFolder;

const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// turn-bpf did not do what it was to.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// A file or process operation failed.
    #[error("turn-bpf")]
    Io(#[from] io::Error),
    /// It ended instead of getting ready.
    #[error("turn-bpf ended with {status}: {log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it wrote on standard error.
        log: String,
    },
    /// It did not get ready in time.
    #[error("turn-bpf does not get ready: {0}")]
    Silent(String),
    /// A query failed.
    #[error("turn-bpf {query} ended with {status}: {error}")]
    Query {
        /// The command.
        query: &'static str,
        /// Its exit status.
        status: ExitStatus,
        /// What it wrote on standard error.
        error: String,
    },
    /// A document is not what it should be.
    #[error("turn-bpf {query} printed {text}")]
    Document {
        /// The command.
        query: &'static str,
        /// What it wrote.
        text: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// What `turn-bpf status --json` says, as far as tests need it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// Attached interfaces.
    pub interfaces: Vec<Interface>,
    /// Known allocations.
    pub allocations: u64,
    /// Known channel bindings.
    pub bindings: u64,
    /// Packets since the start.
    pub packets: Packets,
    /// Packets by the reason for their way.
    pub reasons: BTreeMap<String, u64>,
    /// Control messages that turn-bpf has read.
    pub control_messages: ControlMessages,
}

/// Control messages that turn-bpf has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ControlMessages {
    /// Of clients.
    pub requests: u64,
    /// Of servers.
    pub responses: u64,
}

/// An attached interface.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// `native`, `tc` or `generic`.
    pub mode: String,
    /// Why not `native`.
    pub mode_reason: Option<String>,
}

/// Packets since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Packets {
    /// Relayed in the kernel.
    pub kernel: u64,
    /// Of known flows, and left to the server.
    pub spilled: u64,
    /// All others.
    pub passed: u64,
}

/// A row of `turn-bpf sessions --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Session {
    /// The client's transport address.
    pub client: SocketAddr,
    /// The TURN server's transport address.
    pub server: SocketAddr,
    /// The relayed transport address.
    pub relayed: SocketAddr,
    /// The peer's transport address.
    pub peer: SocketAddr,
    /// The channel number, such as `0x4000`.
    pub channel: String,
    /// `kernel`, `userspace` or `mixed`.
    pub state: String,
    /// Why not `kernel`.
    pub reason: Option<String>,
    /// One direction.
    pub client_to_peer: Counts,
    /// The other direction.
    pub peer_to_client: Counts,
}

/// What one direction carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Packets relayed in the kernel.
    pub kernel_packets: u64,
    /// Their UDP payload at the peer.
    pub kernel_bytes: u64,
    /// Packets left to the server.
    pub spilled_packets: u64,
    /// Their UDP payload, without ChannelData headers.
    pub spilled_bytes: u64,
}

impl Counts {
    /// All packets.
    pub fn packets(&self) -> u64 {
        self.kernel_packets + self.spilled_packets
    }
}

#[derive(Deserialize)]
struct Sessions {
    sessions: Vec<Session>,
}

/// A running `turn-bpf run`, killed on drop.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    binary: PathBuf,
    control: PathBuf,
    ready: String,
    folder: ScratchFolder,
}

impl Daemon {
    /// Runs the binary with `run`, the control socket and the arguments, and waits until it says that it is ready.
    pub fn start(
        namespace: &Namespace,
        binary: &Path,
        control: &Path,
        arguments: &[&str],
    ) -> Result<Self, DaemonError> {
        Self::start_within(namespace, &[], binary, control, arguments)
    }

    /// The same through a program that becomes turn-bpf, given with its arguments.
    pub fn start_within(
        namespace: &Namespace,
        wrapper: &[&str],
        binary: &Path,
        control: &Path,
        arguments: &[&str],
    ) -> Result<Self, DaemonError> {
        let folder = ScratchFolder::new("turn-bpf")?;
        let mut command = match wrapper {
            [] => namespace.command(binary),
            [program, arguments @ ..] => {
                let mut command = namespace.command(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        command.arg("run").arg("--control").arg(control).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(folder.path().join("log"))?);
        let process = Process::spawn(&mut command)?;
        let mut daemon =
            Self { process, binary: binary.into(), control: control.into(), ready: String::new(), folder };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// The line that said that it is ready.
    pub fn ready_line(&self) -> &str {
        &self.ready
    }

    /// Its process, for signals and costs.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has written on standard error.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Memory that it has in use (proc(5): VmRSS), in bytes.
    pub fn memory(&self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let kilobytes = status.lines().find_map(|line| {
            line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()
        });
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Ends it with SIGTERM.
    pub fn stop(mut self) -> io::Result<ExitStatus> {
        self.process.stop(Signal::TERM, STOP_LIMIT)
    }

    /// Kills it with signal 9.
    pub fn kill(mut self) -> io::Result<()> {
        self.process.kill().map(drop)
    }

    /// `turn-bpf status --json`.
    pub fn status(&self) -> Result<Status, DaemonError> {
        self.document("status")
    }

    /// `turn-bpf sessions --json`.
    pub fn sessions(&self) -> Result<Vec<Session>, DaemonError> {
        self.document("sessions").map(|document: Sessions| document.sessions)
    }

    /// A document, of whatever shape.
    pub fn document<T: DeserializeOwned>(&self, query: &'static str) -> Result<T, DaemonError> {
        let output =
            Command::new(&self.binary).args([query, "--json", "--control"]).arg(&self.control).output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(DaemonError::Query { query, status: output.status, error });
        }
        serde_json::from_slice(&output.stdout).map_err(|source| DaemonError::Document {
            query,
            text: String::from_utf8_lossy(&output.stdout).into_owned(),
            source,
        })
    }

    /// The binary with a subcommand that talks to this daemon.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.args([subcommand, "--control"]).arg(&self.control);
        command
    }

    /// What a subcommand prints that has to succeed.
    pub fn output(&self, subcommand: &'static str, arguments: &[&str]) -> Result<String, DaemonError> {
        let output = self.command(subcommand).args(arguments).output()?;
        if !output.status.success() {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(DaemonError::Query { query: subcommand, status: output.status, error });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn wait_until_ready(&mut self) -> Result<(), DaemonError> {
        let stdout = self.process.child().stdout.take();
        let stdout = stdout.ok_or_else(|| io::Error::from(io::ErrorKind::BrokenPipe))?;
        let (say_ready, ready) = mpsc::channel();
        thread::spawn(move || {
            // Reads on to the end: nobody else empties the pipe.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ready") {
                    let _nobody_waits = say_ready.send(line);
                }
            }
        });
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if let Ok(line) = ready.recv_timeout(Duration::from_millis(10)) {
                self.ready = line;
                return Ok(());
            }
            if let Some(status) = self.process.ended()? {
                return Err(DaemonError::Ended { status, log: self.log() });
            }
            if Instant::now() > deadline {
                return Err(DaemonError::Silent(self.log()));
            }
        }
    }
}
