//! `turnutils_uclient`, coturn's own load generator.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use turn_testkit::coturn::{PASSWORD, USER};
use turn_testkit::lab::Namespace;
use turn_testkit::process::Process;

use super::load::Load;

/// What uclient says about its traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Messages that came back.
    pub received: u64,
    /// Messages that uclient misses at the end.
    pub lost: Option<u64>,
    /// Average round-trip time in milliseconds, of whole milliseconds.
    pub round_trip_ms: Option<f64>,
}

/// A running uclient.
#[derive(Debug)]
pub struct Uclient {
    pub process: Process,
    tally: Arc<Mutex<(Tally, Vec<String>)>>,
    reader: JoinHandle<()>,
}

impl Uclient {
    /// Starts all clients in the namespace, toward a peer that echoes, or without one toward each other.
    pub fn start(
        client: &Namespace,
        load: &Load,
        server: SocketAddr,
        peer: Option<(IpAddr, u16)>,
    ) -> Result<Self> {
        // uclient writes to a pipe in blocks, which is no use for showing progress.
        let mut command = client.command("stdbuf");
        command
            .args(["-oL", "turnutils_uclient", "-c", "-u", USER, "-w", PASSWORD])
            .args(["-p", &server.port().to_string()]);
        match peer {
            Some((ip, port)) => command.args(["-e", &ip.to_string(), "-r", &port.to_string()]),
            None => command.arg("-y"),
        };
        command
            .args(["-m", &load.clients.to_string(), "-n", &load.messages_per_client.to_string()])
            .args(["-l", &load.message_size.to_string(), "-z", &load.interval_ms.to_string()])
            .arg(server.ip().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command).context("cannot run turnutils_uclient")?;
        let stdout = process.child().stdout.take().context("turnutils_uclient's standard output")?;
        let tally = Arc::new(Mutex::new((Tally::default(), Vec::new())));
        let shared = Arc::clone(&tally);
        let reader = thread::spawn(move || follow(stdout, &shared));
        Ok(Self { process, tally, reader })
    }

    /// What it has said so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// What it said in the end.
    pub fn finish(self) -> Result<Tally> {
        let Self { mut process, tally, reader } = self;
        let status = process.child().wait()?;
        let _panicked = reader.join();
        let (tally, lines) = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if tally.lost.is_none() {
            bail!("turnutils_uclient ended with {status}:\n{}", lines.join("\n"));
        }
        Ok(tally)
    }
}

fn follow(stdout: impl Read, shared: &Mutex<(Tally, Vec<String>)>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.0.read(&line);
        if shared.1.len() < 50 {
            shared.1.push(line);
        }
    }
}

impl Tally {
    fn read(&mut self, line: &str) {
        let number = |key: &str| {
            let (_, rest) = line.split_once(key)?;
            let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            rest.get(..end)
        };
        let count = |key| number(key).and_then(|digits| digits.parse::<u64>().ok());
        self.sent = count("tot_send_msgs=").unwrap_or(self.sent);
        self.received = count("tot_recv_msgs=").unwrap_or(self.received);
        self.lost = count("Total lost packets ").or(self.lost);
        let round_trip = number("Average round trip delay ").and_then(|digits| digits.parse().ok());
        self.round_trip_ms = round_trip.or(self.round_trip_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_uclient_is_read() {
        let mut tally = Tally::default();
        for line in [
            "9: : start_mclient: msz=4, tot_send_msgs=3460, tot_recv_msgs=3458, tot_send_bytes ~ 692000",
            "11: : start_mclient: tot_send_msgs=4000, tot_recv_msgs=3999",
            "11: : Total lost packets 1 (0.025000%), total send dropped 0 (0.000000%)",
            "11: : Average round trip delay 0.001500 ms; min = 0 ms, max = 4 ms",
        ] {
            tally.read(line);
        }
        assert_eq!(tally, Tally { sent: 4000, received: 3999, lost: Some(1), round_trip_ms: Some(0.0015) });
    }
}
