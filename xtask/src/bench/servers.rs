//! TURN servers, and turn-bpf in front of them, at the same offered load.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use turn_testkit::coturn::PORT;
use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Family, Lab, Topology, XdpMode};
use turn_testkit::machine::{self, Rest};
use turn_testkit::measurement::{Budget, Figure, Part, Summary};
use turn_testkit::packet::Packet;
use turn_testkit::process::running_time;
use turn_testkit::role::Mac;
use turn_testkit::scratch::ScratchFolder;
use turn_testkit::traffic::{Channel, Echo, Report, Traffic};
use turn_testkit::turn_client::TurnClient;

use super::Programs;
use super::load::{Load, Order, Outcome};
use crate::interop::server::{Running, Server};
use crate::interrupt;

/// All servers that are run.
pub const ALL: [Server; 4] = [Server::Coturn, Server::CoturnNew, Server::CoturnNewOptions, Server::WebrtcRs];

/// What is compared: a server, and the `--mode` of a turn-bpf in front of it.
const SUBJECTS: [(Server, Option<&str>); 8] = [
    (Server::Coturn, None),
    (Server::CoturnNew, None),
    (Server::CoturnNewOptions, None),
    (Server::WebrtcRs, None),
    (Server::Coturn, Some("native")),
    (Server::Coturn, Some("tc")),
    (Server::Coturn, Some("generic")),
    (Server::CoturnNewOptions, Some("native")),
];

const CLIENTS: u32 = 10;
const FIRST_PORT: u16 = 40_000;
const CHANNEL: u16 = 0x4000;
/// In seconds.
const LIFETIME: u32 = 600;
const PAYLOAD: usize = 200;
/// Where packets of the first client are counted (RFC 863: discard), and those of each other one port further.
/// A server that shares one relayed transport address among clients refuses to bind two of them to one peer.
const DISCARD: u16 = 9;

/// Packets per second that coturn takes without loss.
const COMMON: u32 = 20_000;
/// From one heartbeat of a flow to the next, so that each has its one.
const COMMON_SECONDS: f64 = 3.0;

/// Packets per second, one after the other until some are lost.
const LADDER: [u32; 16] = [
    10_000, 20_000, 30_000, 45_000, 65_000, 90_000, 120_000, 160_000, 200_000, 250_000, 350_000, 500_000,
    700_000, 1_000_000, 1_500_000, 2_000_000,
];
const STEP_SECONDS: f64 = 0.7;
/// One in a thousand that is lost is loss.
const LOSSLESS: f64 = 0.999;

/// How the round trips are measured.
const PROBE: Traffic = Traffic { stream: 1, sizes: 100..=200, rate: 1000, duration: Duration::from_secs(1) };

const ENDS: &str = "making and counting alone";
const WORK: &str = "all the work per packet";
const PER_PROCESSOR: &str = "packets per second and processor that relays";
const COMMON_CASE: &str = "20000 packets per second";

/// A server with its clients, each in a lab of its own, so that all can be measured in turn.
struct Setting {
    name: String,
    load: Load,
    frame: Vec<u8>,
    bare_frame: Vec<u8>,
    probe: TurnClient,
    echo: Echo,
    /// Each with its peer.
    clients: Vec<(TurnClient, SocketAddr)>,
    daemon: Option<Daemon>,
    kernel_threads: Vec<u32>,
    /// Where on the ladder the highest load without loss was found last.
    rung: usize,
    /// Whether the rung above was too much just before.
    came_down: bool,
    server: Running,
    _folder: ScratchFolder,
    _pass: OwnedFd,
    lab: Lab,
}

/// What a second of load has cost.
struct Cost {
    outcome: Outcome,
    machine: Duration,
    /// Of the server, of turn-bpf, of the load, and of the kernel threads that take the network's work over.
    work: Duration,
    server: Duration,
}

pub fn measure(programs: &Programs, rounds: usize) -> Result<Part> {
    let processors_busy_before = machine::busy_processors()?;
    let start = Instant::now();
    let mut figures = Vec::new();
    let mut settings = Vec::new();
    for (server, mode) in SUBJECTS {
        interrupt::check()?;
        match Setting::new(programs, server, mode) {
            Ok(setting) => settings.push(setting),
            Err(error) => eprintln!("bench: {} is left out: {error:#}", name(server, mode)),
        }
    }
    for round in 0..=rounds {
        eprintln!("bench: {COMMON_CASE}, round {round} of {rounds}");
        for (at, setting) in settings.iter_mut().enumerate() {
            interrupt::check()?;
            let mut measured = setting.measure_common(at == 0)?;
            measured.extend(setting.round_trips()?);
            if round > 0 {
                measured.into_iter().for_each(|figure| add(&mut figures, figure));
            }
        }
    }
    for round in 0..=rounds {
        eprintln!("bench: how much each takes, round {round} of {rounds}");
        for setting in &mut settings {
            interrupt::check()?;
            let measured = setting.highest_load()?;
            if round > 0 {
                measured.into_iter().for_each(|figure| add(&mut figures, figure));
            }
        }
    }
    let budgets = budgets(&figures);
    Ok(Part {
        schema: 1,
        part: "servers".to_owned(),
        machine: machine::description(),
        processors_busy_before,
        seconds: start.elapsed().as_secs_f64(),
        figures,
        budgets,
    })
}

impl Setting {
    fn new(programs: &Programs, server: Server, mode: Option<&str>) -> Result<Self> {
        let name = name(server, mode);
        eprintln!("bench: starting {name}");
        let lab = Lab::new(Topology::Two)?;
        let pass = lab.client.attach_pass("cli0", XdpMode::Native)?;
        // As network cards have it. A virtual link takes XDP frames then, with or without a program.
        for interface in ["srv0", "srv1"] {
            lab.server.run("ethtool", &["-K", interface, "gro", "on"])?;
        }
        let folder = ScratchFolder::new("bench")?;
        let load = Load::start(&programs.turn_bench, &lab.peer, "peer0", DISCARD)?;
        let addresses = lab.addresses(Family::V4);
        let listener = (addresses.listen, PORT).into();
        let server = server.start(&lab)?;
        let daemon = mode
            .map(|mode| {
                let arguments = ["--mode", mode, "srv0", "srv1"];
                Daemon::start(
                    &lab.server,
                    &programs.turn_bpf,
                    &folder.path().join("control.sock"),
                    &arguments,
                )
            })
            .transpose()?;
        let mut clients = Vec::new();
        for (port, peer_port) in (FIRST_PORT..).zip(DISCARD..).take(CLIENTS as usize) {
            let socket = lab.client.udp_socket((addresses.client, port).into())?;
            let mut client = TurnClient::new(socket, listener);
            client.allocate(None, None)?;
            let peer = (addresses.peer, peer_port).into();
            client.channel_bind(CHANNEL, peer)?;
            clients.push((client, peer));
        }
        let mut probe = TurnClient::new(lab.client.udp_socket((addresses.client, 0).into())?, listener);
        let echo = Echo::start(lab.peer.udp_socket((addresses.peer, 0).into())?);
        probe.allocate(None, None)?;
        probe.channel_bind(CHANNEL, echo.address())?;

        let mac = |namespace: &turn_testkit::lab::Namespace, interface: &str| -> Result<Mac> {
            let path = format!("/sys/class/net/{interface}/address");
            let text = namespace.output("cat", &[&path])?;
            let bytes: Result<Vec<u8>, _> =
                text.trim().split(':').map(|byte| u8::from_str_radix(byte, 16)).collect();
            Mac::try_from(bytes?).map_err(|_| anyhow!("{text} is no MAC address"))
        };
        let data = vec![0x5a; PAYLOAD];
        let frame = Packet::new((addresses.client, FIRST_PORT).into(), listener)
            .macs(mac(&lab.server, "srv0")?, mac(&lab.client, "cli0")?)
            .channel_data(CHANNEL, &data, &[])
            .build();
        let bare_frame = Packet::new((addresses.relay, FIRST_PORT).into(), (addresses.peer, DISCARD).into())
            .macs(mac(&lab.peer, "peer0")?, mac(&lab.server, "srv1")?)
            .payload(&data)
            .build();
        Ok(Self {
            name,
            load,
            frame,
            bare_frame,
            probe,
            echo,
            clients,
            daemon,
            kernel_threads: kernel_threads()?,
            rung: 0,
            came_down: false,
            server,
            _folder: folder,
            _pass: pass,
            lab,
        })
    }

    /// All rounds together take longer than allocations, channel bindings and permissions last.
    fn renew(&mut self) -> Result<()> {
        let Self { clients, probe, echo, .. } = self;
        for (client, peer) in
            clients.iter_mut().map(|(client, peer)| (client, *peer)).chain([(probe, echo.address())])
        {
            client.refresh(LIFETIME)?;
            client.channel_bind(CHANNEL, peer)?;
        }
        Ok(())
    }

    /// Offers packets of all clients.
    fn offer(&mut self, rate: u32, seconds: f64) -> Result<Cost> {
        let order = Order::new(&self.lab.client, "cli0", &self.frame, CLIENTS, rate, seconds);
        self.cost(&order)
    }

    /// Sends the same number of packets without a server between.
    fn offer_bare(&mut self, rate: u32, seconds: f64) -> Result<Cost> {
        let order = Order::new(&self.lab.server, "srv1", &self.bare_frame, CLIENTS, rate, seconds);
        self.cost(&order)
    }

    fn cost(&mut self, order: &Order) -> Result<Cost> {
        let (server_before, work_before) = (running_time(self.server.id())?, self.work()?);
        let rest = Rest::now()?;
        let outcome = self.load.offer(order)?;
        let machine = rest.work_since()?;
        let server = running_time(self.server.id())?.saturating_sub(server_before);
        Ok(Cost { outcome, machine, server, work: self.work()?.saturating_sub(work_before) })
    }

    /// How long everything has been running that has to do with the packets. Without network cards, softirqs run where
    /// a process has just sent, in its time, or in these kernel threads.
    fn work(&mut self) -> Result<Duration> {
        let mut processes = self.kernel_threads.clone();
        processes.extend([self.server.id(), self.load.id()]);
        processes.extend(self.daemon.as_mut().map(|daemon| daemon.process().id()));
        let times = processes.into_iter().map(running_time);
        Ok(times.sum::<std::io::Result<Duration>>()?)
    }

    /// The load that is the same for all.
    fn measure_common(&mut self, with_ends: bool) -> Result<Vec<Figure>> {
        self.renew()?;
        // Flows that were idle have to be seen again.
        self.offer(COMMON / 10, 0.5)?;
        let cost = self.offer(COMMON, COMMON_SECONDS)?;
        let figure = |subject: &str, what: &str, unit: &str, value: f64| Figure {
            case: format!("{COMMON_CASE}: {what}"),
            subject: subject.to_owned(),
            unit: unit.to_owned(),
            rounds: vec![value],
        };
        let mut figures = vec![
            figure(&self.name, WORK, "us", cost.per_packet(cost.work)),
            figure(&self.name, "the server's time per packet", "us", cost.per_packet(cost.server)),
            figure(&self.name, "the whole machine's time per packet", "us", cost.per_packet(cost.machine)),
            figure(&self.name, "lost", "share", 1.0 - cost.outcome.arrived_share()),
        ];
        if with_ends {
            let bare = self.offer_bare(COMMON, COMMON_SECONDS)?;
            figures.push(figure(ENDS, WORK, "us", bare.per_packet(bare.work)));
            let machine = bare.per_packet(bare.machine);
            figures.push(figure(ENDS, "the whole machine's time per packet", "us", machine));
        }
        Ok(figures)
    }

    /// Offers more and more until packets are lost, or less and less until none are, from where it ended last.
    fn highest_load(&mut self) -> Result<Vec<Figure>> {
        self.renew()?;
        let mut found = None;
        let mut most = 0.0_f64;
        while let Some(rate) = LADDER.get(self.rung).copied() {
            interrupt::check()?;
            let cost = self.load_with_least_loss(rate)?;
            most = most.max(cost.outcome.arrived as f64 / cost.outcome.seconds);
            // A generator that cannot keep up offers less than it was asked for.
            let offered = cost.outcome.sent as f64 / cost.outcome.seconds;
            let is_lossless = cost.outcome.arrived_share() >= LOSSLESS && offered >= 0.9 * f64::from(rate);
            match (is_lossless, self.rung.checked_sub(1)) {
                (true, _) => {
                    let costs = (offered, cost.per_packet(cost.work), cost.per_packet(cost.server));
                    let was_too_much = found.replace(costs).is_none() && self.came_down;
                    if was_too_much || self.rung + 1 == LADDER.len() {
                        break;
                    }
                    self.rung += 1;
                }
                (false, Some(lower)) => {
                    self.rung = lower;
                    if found.is_some() {
                        break;
                    }
                    self.came_down = true;
                }
                (false, None) => break,
            }
        }
        self.came_down = false;

        let subject = self.name.clone();
        let figure = |case: &str, unit: &str, value: f64| Figure {
            case: case.to_owned(),
            subject: subject.clone(),
            unit: unit.to_owned(),
            rounds: vec![value],
        };
        let mut figures = vec![figure("highest load, with loss", "packets per second", most)];
        if let Some((offered, work, server)) = found {
            let bare = self.offer_bare(offered as u32, STEP_SECONDS)?;
            let relaying = work - bare.per_packet(bare.work);
            figures.extend([
                figure("highest load without loss", "packets per second", offered),
                figure("highest load without loss: all the work per packet", "us", work),
                figure("highest load without loss: relaying, per packet", "us", relaying),
                figure("highest load without loss: the server's time per packet", "us", server),
            ]);
            if relaying > 0.0 {
                figures.push(figure(PER_PROCESSOR, "packets per second", 1e6 / relaying));
            }
        }
        Ok(figures)
    }

    /// Offers a load twice where packets are lost: once is no case, the machine may have been elsewhere.
    fn load_with_least_loss(&mut self, rate: u32) -> Result<Cost> {
        let first = self.load_again(rate)?;
        if first.outcome.arrived_share() >= LOSSLESS {
            return Ok(first);
        }
        let second = self.load_again(rate)?;
        let is_better = second.outcome.arrived_share() > first.outcome.arrived_share();
        Ok(if is_better { second } else { first })
    }

    fn load_again(&mut self, rate: u32) -> Result<Cost> {
        self.offer(COMMON / 10, 0.2)?;
        self.offer(rate, STEP_SECONDS)
    }

    /// Round trips of a client with sockets at both ends, alone and beside that load.
    fn round_trips(&mut self) -> Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for (load, case) in
            [(0, "round trip, little load"), (COMMON, "round trip beside 20000 packets per second")]
        {
            let Self { probe, load: generator, lab, frame, .. } = self;
            let order =
                Order::new(&lab.client, "cli0", frame, CLIENTS, load, PROBE.duration.as_secs_f64() + 0.3);
            let report = thread::scope(|scope| -> Result<Report> {
                let probing =
                    scope.spawn(|| PROBE.round_trips(&mut Channel { client: probe, number: CHANNEL }));
                if load > 0 {
                    generator.offer(&order)?;
                }
                Ok(probing.join().map_err(|_| anyhow!("the probe panicked"))??)
            })?;
            for (share, what) in [(0.5, "median"), (0.99, "99 %"), (0.999, "99.9 %")] {
                let time = report.round_trip(share).context("nothing came back")?;
                figures.push(Figure {
                    case: format!("{case}, {what}"),
                    subject: self.name.clone(),
                    unit: "us round trip".to_owned(),
                    rounds: vec![time.as_secs_f64() * 1e6],
                });
            }
        }
        Ok(figures)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        // Before the namespaces go.
        drop(self.daemon.take());
    }
}

impl Cost {
    /// Microseconds per packet that arrived.
    fn per_packet(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e6 / self.outcome.arrived.max(1) as f64
    }
}

/// The kernel threads that take the network's work over where there is too much.
fn kernel_threads() -> Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            threads.extend(entry.file_name().to_string_lossy().parse::<u32>());
        }
    }
    Ok(threads)
}

/// Adds the rounds of a figure to those that are there.
fn add(figures: &mut Vec<Figure>, figure: Figure) {
    let same = |known: &&mut Figure| known.case == figure.case && known.subject == figure.subject;
    match figures.iter_mut().find(same) {
        Some(known) => known.rounds.extend(figure.rounds),
        None => figures.push(figure),
    }
}

fn name(server: Server, mode: Option<&str>) -> String {
    match mode {
        None => server.title().to_owned(),
        Some(mode) => format!("{} with turn-bpf, {mode}", server.title()),
    }
}

/// What turn-bpf saves of a stock coturn's work.
fn budgets(figures: &[Figure]) -> Vec<Budget> {
    let median = |case: &str, subject: &str| {
        let found = figures.iter().find(|figure| figure.case == case && figure.subject == subject);
        found.and_then(Figure::summary).map(|Summary { median, .. }| median)
    };
    let (without, with) = (name(Server::Coturn, None), name(Server::Coturn, Some("native")));
    let saved = || -> Option<Vec<Budget>> {
        let work = format!("{COMMON_CASE}: {WORK}");
        let server = format!("{COMMON_CASE}: the server's time per packet");
        let ends = median(&work, ENDS)?;
        let relaying = |subject: &str| Some(median(&work, subject)? - ends);
        let budget = |what: &str, limit, measured, why: &str| Budget {
            what: what.to_owned(),
            limit,
            at_most: false,
            measured,
            unit: "times".to_owned(),
            why: why.to_owned(),
        };
        Some(vec![
            budget(
                "stock coturn's own time per packet, of that with turn-bpf",
                50.0,
                median(&server, &without)? / median(&server, &with)?,
                "what is left to the server is each flow's heartbeat",
            ),
            budget(
                "all work per packet through stock coturn, less making and counting, of that with turn-bpf",
                15.0,
                relaying(&without)? / relaying(&with)?,
                "without network cards both pay for the veth pairs on either side, which weigh more than the program",
            ),
            budget(
                "packets per second and processor with turn-bpf, of those of stock coturn",
                20.0,
                median(PER_PROCESSOR, &with)? / median(PER_PROCESSOR, &without)?,
                "without network cards both pay for the veth pairs on either side, which weigh more than the program",
            ),
        ])
    };
    saved().unwrap_or_default()
}
