//! Many allocations at once, and how fast single ones are followed.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use turn_testkit::daemon::Session;
use turn_testkit::measurement::{Budget, Figure};
use turn_testkit::offload::{Offload, OffloadOptions};
use turn_testkit::process::running_time;
use turn_testkit::turn_client::TurnClient;

use crate::{Findings, rounds};

const CLIENTS: usize = 10_000;
/// Threads that clients work on, each with its share.
const THREADS: usize = 8;
const CHANNEL: u16 = 0x4000;
/// How long turn-bpf may take to learn what it has seen.
const LEARNING: Duration = Duration::from_secs(30);
/// Between two packets of a flow whose start or end is looked for.
const SPACING: Duration = Duration::from_micros(500);

pub fn measure(binary: &Path, count: usize) -> Result<Findings> {
    // A socket is a file, and there are many.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let binary = binary.to_str().context("a path that is no text")?;
    let mut findings = Findings::default();
    for with in [false, true] {
        many(binary, with, &mut findings)?;
    }
    findings.figures.extend(rounds::run(count, |report| follow(binary, report))?);
    Ok(findings)
}

/// Ten thousand clients with a channel each.
fn many(binary: &str, with_daemon: bool, findings: &mut Findings) -> Result<()> {
    eprintln!("bench: {CLIENTS} allocations {}", if with_daemon { "with turn-bpf" } else { "without" });
    let mut offload = OffloadOptions::new(binary).default_terms().start_without_daemon();
    if with_daemon {
        offload.start_daemon();
    }
    let subject = if with_daemon { "with turn-bpf" } else { "coturn alone" };
    let mut add = |what: &str, unit: &str, value: f64| {
        let (case, unit) = (format!("{CLIENTS} allocations with a channel each: {what}"), unit.to_owned());
        findings.figures.push(Figure { case, subject: subject.to_owned(), unit, rounds: vec![value] });
    };
    let idle_memory = if with_daemon { offload.daemon().memory()? } else { 0 };
    let coturn_before = running_time(offload.coturn().id())?;
    let start = Instant::now();
    let clients = set_up(&offload)?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(clients.len() == CLIENTS, "{} clients of {CLIENTS}", clients.len());
    add("rate", "per second", CLIENTS as f64 / seconds);
    let coturn = running_time(offload.coturn().id())? - coturn_before;
    add("coturn's time for each", "us", coturn.as_secs_f64() * 1e6 / CLIENTS as f64);
    if with_daemon {
        let deadline = start + Duration::from_secs_f64(seconds) + LEARNING;
        let learned = loop {
            let bindings = offload.daemon().status()?.bindings;
            if bindings >= CLIENTS as u64 || Instant::now() > deadline {
                break bindings;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let daemon = running_time(offload.daemon().process().id())?;
        let memory = offload.daemon().memory()?.saturating_sub(idle_memory);
        add("turn-bpf's time for each", "us", daemon.as_secs_f64() * 1e6 / CLIENTS as f64);
        add("turn-bpf's memory for each", "bytes", memory as f64 / CLIENTS as f64);
        findings.budgets.push(Budget {
            what: format!("bindings learned of {CLIENTS}, set up as fast as coturn can"),
            limit: CLIENTS as f64,
            at_most: false,
            measured: learned as f64,
            unit: "bindings".to_owned(),
            why: "the daemon was not given the processor, or control messages were lost (`control_lost`)"
                .to_owned(),
        });
    }
    Ok(())
}

/// Sets up all clients, and keeps their sockets open.
fn set_up(offload: &Offload) -> Result<Vec<TurnClient>> {
    let peer = offload.peer().local_addr()?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(move || {
                    (0..CLIENTS / THREADS)
                        .map(|_| {
                            let (mut client, _) = offload.allocated_client();
                            client.channel_bind(CHANNEL, peer)?;
                            Ok(client)
                        })
                        .collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut clients = Vec::new();
        for thread in threads {
            clients.extend(thread.join().map_err(|_| anyhow!("a client panicked"))??);
        }
        Ok(clients)
    })
}

/// From a ChannelBind success to the first packet relayed in the kernel, and from three kinds of end to the last one.
fn follow(binary: &str, report: &mut dyn FnMut(&str, &str, &str, f64)) -> Result<()> {
    const CASE: &str = "how soon";
    let mut offload = OffloadOptions::new(binary).default_terms().start();
    let mut flow = Flow::bind(&offload)?;
    flow.send_for(Duration::from_millis(300))?;
    let counts = flow.session(&offload)?.client_to_peer;
    // The packets before the first one that the kernel relayed, whether they were counted as left to the server or came before
    // the binding was known.
    let first = flow.sent.len() - counts.kernel_packets as usize;
    let armed = flow.sent.get(first).context("the kernel relays nothing")?.duration_since(flow.bound);
    report(CASE, "from the ChannelBind success to the first packet in the kernel", "ms", milliseconds(armed));

    let kernel_before = offload.kernel_packets();
    let sent_before = flow.sent.len();
    let end = Instant::now();
    flow.client.refresh(0)?;
    flow.send_for(Duration::from_millis(300))?;
    let relayed = (offload.kernel_packets() - kernel_before) as usize;
    report(
        CASE,
        "from a Refresh with LIFETIME 0 to the last packet in the kernel",
        "ms",
        flow.last(sent_before, relayed, end),
    );

    let mut flow = Flow::bind(&offload)?;
    flow.send_for(Duration::from_millis(300))?;
    let kernel_before = offload.kernel_packets();
    let sent_before = flow.sent.len();
    let end = Instant::now();
    offload.coturn().process().signal(Signal::KILL)?;
    flow.send_for(Duration::from_millis(1000))?;
    let relayed = (offload.kernel_packets() - kernel_before) as usize;
    report(
        CASE,
        "from the server's death to the last packet in the kernel",
        "ms",
        flow.last(sent_before, relayed, end),
    );
    Ok(())
}

/// A bound channel whose packets are sent at known times.
struct Flow {
    client: TurnClient,
    bound: Instant,
    sent: Vec<Instant>,
    peer: SocketAddr,
    _socket: std::net::UdpSocket,
}

impl Flow {
    fn bind(offload: &Offload) -> Result<Self> {
        let socket = offload.peer();
        let peer = socket.local_addr()?;
        let (mut client, _) = offload.allocated_client();
        client.channel_bind(CHANNEL, peer)?;
        Ok(Self { client, bound: Instant::now(), sent: Vec::new(), peer, _socket: socket })
    }

    fn send_for(&mut self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.sent.push(Instant::now());
            let number = self.sent.len().to_be_bytes();
            // The server may be gone, which an ICMP error tells.
            let _refused = self.client.send_channel_data(CHANNEL, &number, &[]);
            thread::sleep(SPACING);
        }
        Ok(())
    }

    fn session(&self, offload: &Offload) -> Result<Session> {
        let session = offload.session(&self.client, CHANNEL);
        session.with_context(|| format!("no session with the peer {}", self.peer))
    }

    /// Milliseconds from the end to the last of so many packets that were still relayed in the kernel.
    fn last(&self, sent_before: usize, relayed: usize, end: Instant) -> f64 {
        if relayed == 0 {
            return 0.0;
        }
        let last = self.sent.get(sent_before + relayed - 1).copied().unwrap_or(end);
        milliseconds(last.saturating_duration_since(end))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
