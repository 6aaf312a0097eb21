//! The whole way of a packet on one processor, in a lab of namespaces: made in the client's, received, relayed and sent in the
//! server's, received and counted in the peer's.
//!
//! The packets are frames that `BPF_PROG_TEST_RUN` gives to a program of the benchmark (`BPF_F_TEST_XDP_LIVE_FRAMES`), which writes
//! their headers and sends them out. The kernel recycles such frames with whatever was written into them; so they are written anew
//! each time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use aya::programs::tc::SchedClassifierLinkId;
use aya::programs::xdp::XdpLinkId;
use aya::programs::{TcAttachType, XdpMode};
use turn_bpf::object::{Maps, Object as TurnBpf};
use turn_datapath::LeaseTerms;
use turn_datapath::flow::path_flags;
use turn_snoop::ListeningPorts;
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
const MEASURE: Duration = Duration::from_millis(150);
/// Frames per call.
const FRAMES: u32 = 1 << 13;
const PAYLOADS: [usize; 3] = [64, 200, 1200];
const COUNTS: [u32; 3] = [1, 1000, 100_000];
const UNIT: &str = "million packets per second";
const LIMIT: f64 = 0.75;

/// What is in the server's place.
const ENDS_ALONE: Contender = Contender::Bare("generator and counter alone", Bare::Count, XdpMode::Driver);
const REDIRECT: Contender = Contender::Bare("bare redirect, native", Bare::Redirect, XdpMode::Driver);
const REDIRECT_GENERIC: Contender = Contender::Bare("bare redirect, generic", Bare::Redirect, XdpMode::Skb);
const REDIRECT_TC: Contender = Contender::BareTc("bare redirect, tc");
const TRANSMIT: Contender = Contender::Bare("bare transmit, native", Bare::Transmit, XdpMode::Driver);
const NATIVE: Contender = Contender::Ours("turn-bpf, native", XdpMode::Driver);
const GENERIC: Contender = Contender::Ours("turn-bpf, generic", XdpMode::Skb);
const TC: Contender = Contender::OursTc("turn-bpf, tc");

/// Programs at the server's interfaces, and what they are called.
#[derive(Clone, Copy, Debug)]
enum Contender {
    Bare(&'static str, Bare, XdpMode),
    BareTc(&'static str),
    Ours(&'static str, XdpMode),
    OursTc(&'static str),
}

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
    sources: Sources,
    frames: Frames,
    contenders: &'static [Contender],
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

enum Link {
    Xdp(XdpLinkId),
    Tc(SchedClassifierLinkId),
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
    let budgets = budgets(&figures, &cases);
    Ok(Findings { figures, budgets })
}

impl Bench {
    fn new() -> Result<Self> {
        let lab = Lab::new(Topology::Two)?;
        let mut object = Object::load()?;
        let mut turn_bpf = TurnBpf::load(&FOREVER, &ListeningPorts::default(), MAX_FLOWS, None)?;
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
        let case = |family: &str, direction: Vec<Subject>, way, payload, count, contenders| {
            let subject = direction.into_iter().find(|subject| subject.name().ends_with(family));
            let subject = subject.unwrap_or_else(|| unreachable!("all pairs of families are there"));
            let subject = subject.but(|flow| {
                (flow.lease_until, flow.heartbeat_at) = (u64::MAX, u64::MAX);
                flow.path_flags |= path_flags::REDIRECT | path_flags::REDIRECT_PARTS;
                flow.in_ifindex = near;
                flow.out_ifindex = if way == Way::Back { near } else { far };
            });
            let way_name = if way == Way::Back { ", back" } else { "" };
            let flows = if count == 1 { "1 flow".to_owned() } else { format!("{count} flows") };
            let name = format!("{}, {payload} B, {flows}{way_name}", subject.name());
            let sources = Sources { subject, count };
            let frames = sources.frames(payload);
            Case { name, way, sources, frames, contenders }
        };
        const ALL: &[Contender] = &[ENDS_ALONE, REDIRECT, NATIVE, REDIRECT_TC, TC, REDIRECT_GENERIC, GENERIC];
        let mut cases = Vec::new();
        for payload in PAYLOADS {
            for count in COUNTS {
                cases.push(case("4-4", Subject::to_peer(), Way::Through, payload, count, ALL));
            }
        }
        for payload in PAYLOADS {
            for count in COUNTS {
                let contenders: &[Contender] = &[TRANSMIT, NATIVE];
                cases.push(case("4-4", Subject::to_peer(), Way::Back, payload, count, contenders));
            }
        }
        let native: &[Contender] = &[REDIRECT, NATIVE];
        for family in ["4-4", "4-6", "6-4", "6-6"] {
            if family != "4-4" {
                cases.push(case(family, Subject::to_peer(), Way::Through, 200, 1, native));
            }
            cases.push(case(family, Subject::to_client(), Way::Through, 200, 1, native));
            cases.push(case(family, Subject::client_to_client(), Way::Back, 200, 1, &[TRANSMIT, NATIVE]));
        }
        cases
    }

    /// Measures all contenders of a case.
    fn compare(&mut self, case: &Case, report: &mut dyn FnMut(&str, &str, &str, f64)) -> Result<()> {
        for contender in case.contenders {
            let (rate, delivered) = self.send(case, *contender).context(contender.name())?;
            report(&case.name, contender.name(), UNIT, rate);
            if delivered < 0.99 {
                report(&case.name, &format!("{}, delivered", contender.name()), "share", delivered);
            }
        }
        Ok(())
    }

    /// Million packets that arrived per second of the processor, and the share that did.
    fn send(&mut self, case: &Case, contender: Contender) -> Result<(f64, f64)> {
        let mut links = Vec::new();
        for interface in ["srv0", "srv1"] {
            links.push(self.attach(contender, interface, case.way)?);
        }
        let Self { lab, object, ksoftirqd, .. } = self;
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
            Ok((arrived as f64 / 1e6 / time.as_secs_f64(), arrived as f64 / sent as f64))
        })?;
        links.into_iter().try_for_each(|link| self.detach(contender, link))?;
        result
    }

    fn attach(&mut self, contender: Contender, interface: &str, way: Way) -> Result<Link> {
        let Self { lab, object, turn_bpf, .. } = self;
        let [_, near, far] = self.ifindexes;
        let (xdp, mode) = match contender {
            Contender::Bare(_, bare, mode) => (object.bare(bare)?, mode),
            Contender::Ours(_, XdpMode::Skb) => (turn_bpf.generic_xdp()?, XdpMode::Skb),
            Contender::Ours(_, mode) => (turn_bpf.xdp()?, mode),
            Contender::BareTc(_) | Contender::OursTc(_) => {
                object.redirect_at_tc_to(if way == Way::Back { near } else { far })?;
                let classifier = match contender {
                    Contender::BareTc(_) => object.tc_redirect()?,
                    _ => turn_bpf.ingress()?,
                };
                let link = lab.server.enter(|| classifier.attach(interface, TcAttachType::Ingress))?;
                return Ok(Link::Tc(link.with_context(|| format!("cannot attach to {interface}"))?));
            }
        };
        Ok(Link::Xdp(lab.server.enter(|| attach(xdp, interface, mode))??))
    }

    fn detach(&mut self, contender: Contender, link: Link) -> Result<()> {
        let Self { object, turn_bpf, .. } = self;
        match (link, contender) {
            (Link::Xdp(link), Contender::Bare(_, bare, _)) => object.bare(bare)?.detach(link)?,
            (Link::Xdp(link), Contender::Ours(_, XdpMode::Skb)) => turn_bpf.generic_xdp()?.detach(link)?,
            (Link::Xdp(link), _) => turn_bpf.xdp()?.detach(link)?,
            (Link::Tc(link), Contender::BareTc(_)) => object.tc_redirect()?.detach(link)?,
            (Link::Tc(link), _) => turn_bpf.ingress()?.detach(link)?,
        }
        Ok(())
    }
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Bare(name, ..) | Self::BareTc(name) | Self::Ours(name, _) | Self::OursTc(name) => name,
        }
    }
}

/// What turn-bpf reaches of what a bare program does with the same frames, in native mode: the worst of each group of cases.
fn budgets(figures: &[Figure], cases: &[Case]) -> Vec<Budget> {
    let worst = |group: &str, way, count| -> Option<Budget> {
        let bare = if way == Way::Back { TRANSMIT } else { REDIRECT };
        let figure = |case: &Case, contender: Contender| {
            figures.iter().find(|figure| figure.case == case.name && figure.subject == contender.name())
        };
        let ratios = cases.iter().filter(|case| case.way == way && case.sources.count == count);
        let ratios = ratios.filter_map(|case| {
            let ratio = figure(case, NATIVE)?.ratio_to(figure(case, bare)?)?;
            Some((ratio.median, case))
        });
        let (measured, case) = ratios.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
        Some(Budget {
            what: format!("packets per second over virtual links as a share of a {group}; worst: {}", case.name),
            limit: LIMIT,
            at_most: false,
            measured,
            unit: "share".to_owned(),
            why: "the bare program reads no byte of the packet, and a frame's whole way over virtual links is hardly more than \
                  once or twice the work of turn-bpf's program"
                .to_owned(),
        })
    };
    let groups = COUNTS.into_iter().flat_map(|count| {
        let flows = if count == 1 { "one flow".to_owned() } else { format!("{count} flows") };
        [
            worst(&format!("bare redirect of the same frames, {flows}"), Way::Through, count),
            worst(&format!("bare transmit of the same frames, {flows}"), Way::Back, count),
        ]
    });
    groups.flatten().collect()
}
