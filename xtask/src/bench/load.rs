//! A running generator of packets.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use turn_testkit::lab::Namespace;
use turn_testkit::process::Process;

/// `turn-bench offer`, killed on drop.
#[derive(Debug)]
pub struct Load {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    process: Process,
}

/// What is to be sent.
#[derive(Clone, Debug, Serialize)]
pub struct Order {
    from: String,
    by: String,
    frame: String,
    sources: u32,
    rate: u32,
    seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Outcome {
    /// Packets sent.
    pub sent: u64,
    /// Packets that were counted.
    pub arrived: u64,
    /// For how long they were sent.
    pub seconds: f64,
}

impl Order {
    /// Frames like this one from an interface, from so many sources, so many per second, for so long.
    pub fn new(from: &Namespace, by: &str, frame: &[u8], sources: u32, rate: u32, seconds: f64) -> Self {
        let frame = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { from: from.name().to_owned(), by: by.to_owned(), frame, sources, rate, seconds }
    }
}

impl Outcome {
    /// The share that arrived.
    pub fn arrived_share(&self) -> f64 {
        self.arrived as f64 / self.sent.max(1) as f64
    }
}

impl Load {
    /// Starts it, with a counter at an interface for what comes to a UDP port and the 15 that follow.
    pub fn start(turn_bench: &Path, to: &Namespace, at: &str, port: u16) -> Result<Self> {
        let mut command = Command::new(turn_bench);
        command.args(["offer", "--to", to.name(), "--at", at, "--port", &port.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command).context("cannot run turn-bench")?;
        let input = process.child().stdin.take().context("turn-bench's standard input")?;
        let output = process.child().stdout.take().context("turn-bench's standard output")?;
        let mut load = Self { input, output: BufReader::new(output), process };
        load.line()?;
        Ok(load)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends, and waits until what was sent has arrived.
    pub fn offer(&mut self, order: &Order) -> Result<Outcome> {
        writeln!(self.input, "{}", serde_json::to_string(order)?)?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("turn-bench said {line}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("turn-bench has ended");
        }
        Ok(line)
    }
}
