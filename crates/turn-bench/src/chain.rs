//! The whole way of a packet on one processor, in a lab of namespaces: made in the client's, received, relayed and sent in the
//! server's, received and counted in the peer's.
//!
//! The packets are frames that `BPF_PROG_TEST_RUN` gives to a program of the benchmark (`BPF_F_TEST_XDP_LIVE_FRAMES`), which writes
//! their headers and sends them out. The kernel recycles such frames with whatever was written into them; so they are written anew
//! each time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::programs::XdpMode;
use turn_bpf::object::{Maps, Object as TurnBpf};
use turn_datapath::LeaseTerms;
use turn_datapath::flow::path_flags;
use turn_testkit::cases::subject::Subject;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::measurement::{Budget, Figure};

use crate::Findings;
use crate::interface::{attach, index_of};
use crate::object::{Bare, Frames, Object};
use crate::processor::{self, ksoftirqd, running_time_of};
use crate::rounds;
use crate::sources::Sources;

const FOREVER: LeaseTerms = LeaseTerms { lease: u64::MAX, heartbeat: u64::MAX, rate_cost: 0, joins_until: 0 };
const MAX_FLOWS: u32 = 1 << 17;
/// How long one measurement takes.
const MEASURE: Duration = Duration::from_millis(250);
/// Frames per call.
const FRAMES: u32 = 1 << 14;

const OURS: &str = "turn-bpf";
const BARE_REDIRECT: &str = "bare redirect";
const BARE_TRANSMIT: &str = "bare transmit";
const ENDS_ALONE: &str = "generator and counter alone";

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In by one of the server's interfaces, out by the other.
    Through,
    /// Back by the interface that it came by.
    Back,
}

/// Packets on a way.
struct Case {
    name: String,
    way: Way,
    mode: XdpMode,
    sources: Sources,
    frames: Frames,
}

/// The lab, and what is loaded.
struct Bench {
    lab: Lab,
    object: Object,
    turn_bpf: TurnBpf,
    maps: Maps,
    /// Of the client's interface, and the two of the server.
    ifindexes: [u32; 3],
    ksoftirqd: String,
}

pub fn measure(count: usize, wanted: &str) -> Result<Findings> {
    processor::stay()?;
    let mut bench = Bench::new()?;
    let mut cases = bench.cases();
    cases.retain(|case| case.name.contains(wanted));
    let figures = rounds::run(count, |report| {
        cases.iter().try_for_each(|case| {
            case.sources.insert(&mut bench.maps)?;
            let result = bench.compare(case, report).with_context(|| case.name.clone());
            case.sources.remove(&mut bench.maps);
            result
        })
    })?;
    let budgets = cases.iter().filter(|case| case.sources.count == 1 && case.mode == XdpMode::Driver);
    let budgets = budgets.map(|case| budget(&figures, case)).collect::<Result<_>>()?;
    Ok(Findings { figures, budgets })
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::new(Topology::Two)?;
        let mut object = Object::load()?;
        let mut turn_bpf = TurnBpf::load(&FOREVER, MAX_FLOWS)?;
        let mut maps = turn_bpf.take_maps()?;
        let places = [(&lab.client, "cli0"), (&lab.server, "srv0"), (&lab.server, "srv1")];
        let [client, near, far] =
            places.map(|(namespace, interface)| namespace.enter(|| index_of(interface)));
        let ifindexes = [client??, near??, far??];
        let [client, near, far] = ifindexes;
        for (namespace, interface) in [(&lab.client, "cli0"), (&lab.peer, "peer0")] {
            namespace.enter(|| attach(object.bare(Bare::Count)?, interface, XdpMode::Driver))??;
        }
        // While a link's other end has no program, GRO there lets it take frames all the same (drivers/net/veth.c).
        for interface in ["srv0", "srv1"] {
            lab.server.run("ethtool", &["-K", interface, "gro", "on"])?;
        }
        lab.client.enter(|| object.send_to(client))??;
        lab.server.enter(|| -> Result<()> {
            object.redirect_to(far)?;
            for ifindex in [near, far] {
                maps.devices.insert(ifindex, ifindex, None, 0)?;
            }
            Ok(())
        })??;
        Ok(Self { lab, object, turn_bpf, maps, ifindexes, ksoftirqd: ksoftirqd()? })
    }

    fn cases(&self) -> Vec<Case> {
        let [_, near, far] = self.ifindexes;
        let case = |family: &str, direction: Vec<Subject>, way, mode, payload, count| {
            let subject = direction.into_iter().find(|subject| subject.name().ends_with(family));
            let subject = subject.unwrap_or_else(|| unreachable!("all pairs of families are there"));
            let subject = subject.but(|flow| {
                (flow.lease_until, flow.heartbeat_at) = (u64::MAX, u64::MAX);
                flow.path_flags |= path_flags::REDIRECT | path_flags::REDIRECT_PARTS;
                flow.in_ifindex = near;
                flow.out_ifindex = if way == Way::Back { near } else { far };
            });
            let way_name = if way == Way::Back { ", back" } else { "" };
            let mode_name = if mode == XdpMode::Skb { ", generic" } else { "" };
            let flows = if count == 1 { "1 flow".to_owned() } else { format!("{count} flows") };
            let name = format!("{}, {payload} B, {flows}{way_name}{mode_name}", subject.name());
            let sources = Sources { subject, count };
            let frames = sources.frames(payload);
            Case { name, way, mode, sources, frames }
        };
        let mut cases = Vec::new();
        for payload in [64, 200, 1200] {
            for count in [1, 1000, 100_000] {
                cases.push(case("4-4", Subject::to_peer(), Way::Through, XdpMode::Driver, payload, count));
            }
        }
        for family in ["4-4", "4-6", "6-4", "6-6"] {
            if family != "4-4" {
                cases.push(case(family, Subject::to_peer(), Way::Through, XdpMode::Driver, 200, 1));
            }
            cases.push(case(family, Subject::to_client(), Way::Through, XdpMode::Driver, 200, 1));
        }
        cases.push(case("4-4", Subject::client_to_client(), Way::Back, XdpMode::Driver, 200, 1));
        cases.push(case("4-4", Subject::to_peer(), Way::Back, XdpMode::Driver, 200, 1));
        cases.push(case("4-4", Subject::to_peer(), Way::Through, XdpMode::Skb, 200, 1));
        cases.push(case("4-4", Subject::to_peer(), Way::Back, XdpMode::Skb, 200, 1));
        cases
    }

    /// Measures all subjects of a case.
    fn compare(&mut self, case: &Case, report: &mut dyn FnMut(&str, &str, &str, f64)) -> Result<()> {
        let bare = match case.way {
            Way::Through => (BARE_REDIRECT, Bare::Redirect),
            Way::Back => (BARE_TRANSMIT, Bare::Transmit),
        };
        for (subject, program) in [(ENDS_ALONE, Some(Bare::Count)), (bare.0, Some(bare.1)), (OURS, None)] {
            let (time, delivered) = self.send(case, program).context(subject)?;
            report(&case.name, subject, "ns", time);
            if delivered < 0.99 {
                report(&case.name, &format!("{subject}, delivered"), "share", delivered);
            }
        }
        Ok(())
    }

    /// Nanoseconds of the processor per packet that arrived, and the share that did, with a program at the server's interfaces.
    fn send(&mut self, case: &Case, program: Option<Bare>) -> Result<(f64, f64)> {
        let Self { lab, object, turn_bpf, ksoftirqd, .. } = self;
        let mut links = Vec::new();
        for interface in ["srv0", "srv1"] {
            let xdp = match program {
                Some(bare) => object.bare(bare)?,
                None => turn_bpf.xdp()?,
            };
            links.push(lab.server.enter(|| attach(xdp, interface, case.mode))??);
        }
        let [client, ..] = self.ifindexes;
        let result = lab.client.enter(|| -> Result<(f64, f64)> {
            processor::stay()?;
            // The first ones find neither caches warm nor the links awake.
            object.generate(&case.frames, client, FRAMES)?;
            let arrived_before = object.arrived()?;
            let before = processor::running_time() + running_time_of(ksoftirqd)?;
            let start = Instant::now();
            let mut sent = 0_u64;
            while start.elapsed() < MEASURE {
                object.generate(&case.frames, client, FRAMES)?;
                sent += u64::from(FRAMES);
            }
            let time = processor::running_time() + running_time_of(ksoftirqd)? - before;
            let arrived = object.arrived()? - arrived_before;
            if arrived < sent / 2 {
                bail!("of {sent} packets {arrived} arrived");
            }
            Ok((time.as_secs_f64() * 1e9 / arrived as f64, arrived as f64 / sent as f64))
        })?;
        for link in links {
            match program {
                Some(bare) => object.bare(bare)?.detach(link)?,
                None => turn_bpf.xdp()?.detach(link)?,
            }
        }
        result
    }
}

/// What turn-bpf reaches of what a bare program does with the same frames.
fn budget(figures: &[Figure], case: &Case) -> Result<Budget> {
    let bare = if case.way == Way::Back { BARE_TRANSMIT } else { BARE_REDIRECT };
    let figure = |subject: &str| {
        let found = figures.iter().find(|figure| figure.case == case.name && figure.subject == subject);
        found.with_context(|| format!("no figure of {subject} for {}", case.name))
    };
    let ratio = figure(bare)?.ratio_to(figure(OURS)?).context("no rounds")?;
    Ok(Budget {
        what: format!("packets per second as a share of a {bare}: {}", case.name),
        limit: 0.75,
        at_most: false,
        measured: ratio.median,
        unit: "share".to_owned(),
    })
}
