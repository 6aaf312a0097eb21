//! One half of the demo: the same load, with or without turn-bpf.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::Value;
use turn_testkit::coturn::{Coturn, PORT};
use turn_testkit::datagram;
use turn_testkit::lab::{Family, Lab};
use turn_testkit::machine::Rest;
use turn_testkit::process::{Process, cpu_time};

use super::capture::Captures;
use super::load::Load;
use super::offload::Offload;
use super::probe::Probe;
use super::progress::Progress;
use super::uclient::Uclient;
use crate::interrupt;

const PEER_PORT: u16 = 3480;
const PEER_START_LIMIT: Duration = Duration::from_secs(10);
/// Beyond this the demo would no longer be short.
const LIMIT: Duration = Duration::from_secs(55);
const POLL: Duration = Duration::from_millis(50);

/// What a half needs.
pub struct Half<'a> {
    pub lab: &'a Lab,
    pub load: &'a Load,
    pub offload: Option<&'a Path>,
    pub captures: Option<&'a Path>,
    pub progress: &'a Progress,
}

/// What came of it. Times are seconds of CPU unless they say otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub seconds: f64,
    pub packets_sent: u64,
    pub packets_received: u64,
    pub packets_lost: u64,
    pub packets_duplicated_or_altered: u64,
    /// Clients to peer, and back.
    pub packets_relayed: u64,
    pub packets_relayed_in_kernel: u64,
    pub coturn_cpu_seconds: f64,
    pub turn_bpf_cpu_seconds: Option<f64>,
    pub machine_cpu_seconds: f64,
    /// uclient, peer, and the demo itself with its probe.
    pub generator_and_peer_cpu_seconds: f64,
    pub round_trip_median_us: Option<f64>,
    pub round_trip_p99_us: Option<f64>,
    pub uclient_round_trip_average_ms: Option<f64>,
    pub turn_bpf_status: Option<Value>,
}

impl Half<'_> {
    pub fn run(&self) -> Result<Measurement> {
        let name = if self.offload.is_some() { "with" } else { "without" };
        self.progress.line(&format!("demo: {name} turn-bpf: starting coturn and peer"));
        let addresses = self.lab.addresses(Family::V4);
        let captures = self.captures.map(|folder| Captures::start(self.lab, folder, name)).transpose()?;
        let coturn = Coturn::start(self.lab)?;
        let peer = self.start_peer((addresses.peer, PEER_PORT).into())?;
        let offload = self.offload.map(|binary| Offload::start(self.lab, binary)).transpose()?;
        self.progress.line(&format!(
            "demo: {name} turn-bpf: {} clients, {} packets of {} bytes each way, about {} s",
            self.load.clients,
            self.load.messages(),
            self.load.message_size,
            self.load.duration().as_secs() + 5
        ));

        let start = Instant::now();
        let before = Costs::now(&coturn, &peer, offload.as_ref())?;
        let probe = Probe::start(self.lab, &coturn, self.load.duration())?;
        let mut uclient = Uclient::start(
            &self.lab.client,
            self.load,
            (addresses.listen, PORT).into(),
            Some((addresses.peer, PEER_PORT)),
        )?;
        let uclient_cpu = self.watch(name, &mut uclient, &probe, start)?;
        let tally = uclient.finish()?;
        let probed = probe.finish()?;
        let machine_cpu = before.machine.work_since()?;
        let after = Costs::now(&coturn, &peer, offload.as_ref())?;
        let seconds = start.elapsed().as_secs_f64();
        let status = offload.as_ref().map(Offload::status).transpose()?;
        offload.map(Offload::stop).transpose()?;
        captures.map(Captures::stop).transpose()?;
        coturn.stop()?;

        let cost = |part: fn(&Costs) -> Duration| part(&after).saturating_sub(part(&before)).as_secs_f64();
        let packets_sent = tally.sent + probed.sent;
        let packets_received = tally.received + probed.tally.received;
        let packets_relayed = packets_sent + packets_received;
        let in_kernel = status.as_ref().and_then(|status| status.pointer("/packets/kernel")?.as_u64());
        let round_trip_us = |share| probed.round_trip(share).map(|time| time.as_secs_f64() * 1e6);
        Ok(Measurement {
            seconds,
            packets_sent,
            packets_received,
            packets_lost: packets_sent.saturating_sub(packets_received),
            packets_duplicated_or_altered: probed.tally.duplicated + probed.tally.altered,
            packets_relayed,
            packets_relayed_in_kernel: in_kernel.unwrap_or(0),
            coturn_cpu_seconds: cost(|costs| costs.coturn),
            turn_bpf_cpu_seconds: self.offload.map(|_| cost(|costs| costs.offload)),
            machine_cpu_seconds: machine_cpu.as_secs_f64(),
            generator_and_peer_cpu_seconds: cost(|costs| costs.peer_and_probe) + uclient_cpu.as_secs_f64(),
            round_trip_median_us: round_trip_us(0.5),
            round_trip_p99_us: round_trip_us(0.99),
            uclient_round_trip_average_ms: tally.round_trip_ms,
            turn_bpf_status: status,
        })
    }

    /// Shows progress until the traffic is over; returns uclient's CPU time, which is gone when it has ended.
    fn watch(&self, name: &str, uclient: &mut Uclient, probe: &Probe, start: Instant) -> Result<Duration> {
        let mut cpu = Duration::ZERO;
        loop {
            interrupt::check()?;
            // Before the child is waited for, it can still be asked, even if it has ended.
            cpu = uclient.process.cpu_time().unwrap_or(cpu);
            if uclient.process.ended()?.is_some() && probe.is_finished() {
                return Ok(cpu);
            }
            if start.elapsed() > LIMIT {
                bail!("turnutils_uclient does not come to an end: {:?}", uclient.tally());
            }
            self.progress.advance(|| {
                let tally = uclient.tally();
                format!(
                    "demo: {name} turn-bpf: {:2} s, {} of {} packets sent, {} received",
                    start.elapsed().as_secs(),
                    tally.sent,
                    self.load.messages(),
                    tally.received
                )
            });
            thread::sleep(POLL);
        }
    }

    fn start_peer(&self, address: SocketAddr) -> Result<Process> {
        let mut command = self.lab.peer.command("turnutils_peer");
        command.args(["-L", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut peer = Process::spawn(&mut command).context("cannot run turnutils_peer")?;
        let socket = self.lab.peer.udp_socket((address.ip(), 0).into())?;
        let deadline = Instant::now() + PEER_START_LIMIT;
        loop {
            interrupt::check()?;
            if socket.send_to(b"echo", address).is_ok() && datagram::receive(&socket, POLL)?.is_some() {
                return Ok(peer);
            }
            if let Some(status) = peer.ended()? {
                bail!("turnutils_peer ended with {status}");
            }
            if Instant::now() > deadline {
                bail!("turnutils_peer does not echo");
            }
        }
    }
}

/// CPU times at one moment.
struct Costs {
    coturn: Duration,
    offload: Duration,
    peer_and_probe: Duration,
    machine: Rest,
}

impl Costs {
    fn now(coturn: &Coturn, peer: &Process, offload: Option<&Offload<'_>>) -> Result<Self> {
        Ok(Self {
            coturn: coturn.cpu_time()?,
            offload: offload.map(|offload| offload.process.cpu_time()).transpose()?.unwrap_or_default(),
            peer_and_probe: peer.cpu_time()? + cpu_time(std::process::id())?,
            machine: Rest::now()?,
        })
    }
}
