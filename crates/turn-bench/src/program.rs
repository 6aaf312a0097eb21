//! What one run of a program costs, by `BPF_PROG_TEST_RUN`.
//!
//! A program that rewrites a packet must not be fed its own output. Each run therefore goes through a program of the benchmark that
//! writes length and headers anew and then tail-calls the one that is measured. What that costs shows with an empty program in the
//! place of the measured one, and is taken off.

use anyhow::{Result, ensure};
use aya::TestRunOptions;
use aya::programs::{ProgramFd, SchedClassifier, TestRun as _};
use turn_bench_ebpf::MOST_KEYS;
use turn_bpf::flow_table::FlowMaps as _;
use turn_bpf::object::Object as TurnBpf;
use turn_datapath::LeaseTerms;
use turn_datapath::flow::path_flags;
use turn_snoop::ListeningPorts;
use turn_testkit::cases::subject::{Subject, data};
use turn_testkit::measurement::{Budget, Figure, Summary};
use turn_testkit::packet::Packet;
use turn_testkit::role::{CLIENT, CLIENT_V6, PEER, PEER_V6, SERVER, SERVER_V6};

use crate::Findings;
use crate::object::{Bare, Frames, LOOPBACK, Object};
use crate::sources::Sources;
use crate::{lookups, processor, rounds};

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;
const XDP_REDIRECT: u32 = 4;
const TC_NEXT: u32 = -1_i32 as u32;
/// Payload bytes of every packet.
const PAYLOAD: usize = 200;
/// Runs per measurement: some tens of milliseconds.
const RUNS: u32 = 200_000;
/// Flows that random packets belong to.
const MANY: u32 = 100_000;
/// Room for them.
const MAX_FLOWS: u32 = MOST_KEYS;
/// A heartbeat is never due and a lease never over, but where a case says so.
const FOREVER: LeaseTerms = LeaseTerms { lease: u64::MAX, heartbeat: u64::MAX, rate_cost: 0, joins_until: 0 };

const ONE_HOT: &str = "one hot flow, ";
const RANDOM: &str = "100000 flows at random, ";

const OURS: &str = "turn-bpf";
const BARE_LOOKUP: &str = "bare lookup";

/// Why a time could be too long.
const WORK: &str = "the lookup of a 40-byte key, and reading and rewriting headers";
const MEMORY: &str = "the packet waits for memory: the bucket, the key and the flow are in lines of their own, which no cache holds for so many flows";

/// One kind of packet.
struct Case {
    name: String,
    frames: Frames,
    answer: u32,
    sources: Option<Sources>,
}

impl Case {
    fn of_flow(name: String, subject: Subject, count: u32, answer: u32) -> Self {
        let sources = Sources { subject, count };
        Self { name, frames: sources.frames(PAYLOAD), answer, sources: Some(sources) }
    }

    fn passing(name: String, frame: Vec<u8>) -> Self {
        Self { name, frames: Frames { frame, sources: 1 }, answer: XDP_PASS, sources: None }
    }
}

pub fn measure(count: usize, wanted: &str) -> Result<Findings> {
    processor::stay()?;
    let mut bench = Object::load()?;
    bench.redirect_to(LOOPBACK)?;
    let mut turn_bpf = TurnBpf::load(&FOREVER, &ListeningPorts::default(), MAX_FLOWS, None)?;
    let mut maps = turn_bpf.take_maps()?;
    maps.devices.insert(LOOPBACK, LOOPBACK, None, 0)?;
    let ours = turn_bpf.xdp()?.fd()?.try_clone()?;
    let [empty, redirect, look_up] =
        [bench.fd(Bare::Empty)?, bench.fd(Bare::Redirect)?, bench.fd(Bare::LookUp)?];
    let mut cases = cases();
    cases.retain(|case| case.name.contains(wanted));
    let figures = rounds::run(count, |report| {
        for case in &cases {
            // Flows of different cases may have the same key.
            if let Some(sources) = &case.sources {
                sources.insert(&mut maps)?;
                sources.keys().try_for_each(|key| bench.insert(key, sources.flow()))?;
            }
            let mut nanoseconds = |program: &ProgramFd, answer: u32| -> Result<f64> {
                let (answered, time) = bench.time(program, &case.frames, RUNS)?;
                ensure!(answered == answer, "{}: answered {answered}, not {answer}", case.name);
                Ok(time)
            };
            let writing = nanoseconds(&empty, XDP_PASS)?;
            report(&case.name, "writing the frame", "ns", writing);
            report(&case.name, "bare redirect", "ns", nanoseconds(&redirect, XDP_REDIRECT)? - writing);
            if case.answer != XDP_PASS {
                report(&case.name, BARE_LOOKUP, "ns", nanoseconds(&look_up, XDP_PASS)? - writing);
            }
            report(&case.name, OURS, "ns", nanoseconds(&ours, case.answer)? - writing);
            if let Some(sources) = &case.sources {
                sources.remove(&mut maps);
                sources.keys().try_for_each(|key| bench.remove(key))?;
            }
        }
        let next = bench.next()?;
        for (name, frame, subject) in sent().iter().filter(|(name, ..)| name.contains(wanted)) {
            let nothing = at_tc(next, frame)?;
            report(name, "empty program", "ns", nothing);
            if let Some(subject) = subject {
                maps.flows.insert_flow(&subject.key(), &subject.flow)?;
                maps.flows.insert_expected(&subject.output_key(), &subject.key())?;
            }
            report(name, OURS, "ns", at_tc(turn_bpf.egress()?, frame)? - nothing);
            if let Some(subject) = subject {
                maps.flows.remove_expected(&subject.output_key());
                maps.flows.remove_flow(&subject.key());
            }
        }
        for (name, frame) in received().iter().filter(|(name, _)| name.contains(wanted)) {
            let nothing = at_tc(next, frame)?;
            report(name, "empty program", "ns", nothing);
            report(name, OURS, "ns", at_tc(turn_bpf.ingress()?, frame)? - nothing);
        }
        Ok(())
    })?;
    let budgets = [
        within(&figures, "program time, one hot flow, worst of all", ONE_HOT, 150.0, WORK),
        within(&figures, "program time, 100000 flows, random keys, worst of all", RANDOM, 300.0, MEMORY),
    ];
    let budgets = budgets.into_iter().flatten().chain(lookups::budgets(&FOREVER, PAYLOAD)?).collect();
    Ok(Findings { figures, budgets })
}

/// What comes in.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let name = format!("{ONE_HOT}{}", subject.name());
        let armed = armed(&subject);
        cases.push(Case::of_flow(name.clone(), armed.clone(), 1, XDP_TX));
        let elsewhere = armed.but(|flow| flow.path_flags |= path_flags::ONLY_REDIRECT);
        cases.push(Case::of_flow(format!("{name}, redirected"), elsewhere, 1, XDP_REDIRECT));
    }
    for subject in [Subject::to_peer(), Subject::to_client()].concat() {
        let name = format!("{RANDOM}{}", subject.name());
        cases.push(Case::of_flow(name, armed(&subject), MANY, XDP_TX));
    }
    for subject in Subject::all() {
        let lapsed = subject.but(|flow| flow.lease_until = 0);
        cases.push(Case::of_flow(format!("no lease, {}", subject.name()), lapsed, 1, XDP_PASS));
    }
    for subject in [Subject::to_peer(), Subject::to_client()].concat() {
        // With a heartbeat of `FOREVER` the next one wraps to the past, and so every packet is one.
        let due = subject.but(|flow| (flow.lease_until, flow.heartbeat_at) = (u64::MAX, 0));
        cases.push(Case::of_flow(format!("heartbeat, {}", subject.name()), due, 1, XDP_PASS));
    }
    cases.extend(strangers());
    cases
}

/// The flow with a lease that does not end.
fn armed(subject: &Subject) -> Subject {
    subject.but(|flow| (flow.lease_until, flow.heartbeat_at) = (u64::MAX, u64::MAX))
}

/// Packets of no flow.
fn strangers() -> Vec<Case> {
    not_ours().into_iter().map(|(name, frame)| Case::passing(format!("not ours: {name}"), frame)).collect()
}

/// What comes in at TC and is not relayed.
fn received() -> Vec<(String, Vec<u8>)> {
    not_ours().into_iter().map(|(name, frame)| (format!("at TC, not ours: {name}"), frame)).collect()
}

/// Frames that do not belong to a flow.
fn not_ours() -> Vec<(&'static str, Vec<u8>)> {
    let datagram = |packet: Packet| packet.payload(&data(PAYLOAD));
    let channel = |packet: Packet| packet.channel_data(0x4123, &data(PAYLOAD), &[]).build();
    let v4 = datagram(Packet::new(CLIENT, SERVER));
    let v6 = datagram(Packet::new(CLIENT_V6, SERVER_V6));
    let mut arp = v4.build();
    if let Some(ethertype) = arp.get_mut(12..14) {
        ethertype.copy_from_slice(&[0x08, 0x06]);
    }
    vec![
        ("ARP", arp),
        ("TCP, IPv4", v4.clone().protocol(6).build()),
        ("TCP, IPv6", v6.clone().protocol(6).build()),
        ("fragment, IPv4", v4.clone().fragment(true, 0).build()),
        ("datagram, IPv4", v4.build()),
        ("datagram, IPv6", v6.build()),
        ("unbound channel, IPv4", channel(Packet::new(PEER, SERVER))),
        ("unbound channel, IPv6", channel(Packet::new(PEER_V6, SERVER_V6))),
    ]
}

/// What leaves: of others, and of the server, with the flow that it could prove.
fn sent() -> Vec<(String, Vec<u8>, Option<Subject>)> {
    let v4 = Packet::new(SERVER, CLIENT).payload(&data(PAYLOAD));
    let v6 = Packet::new(SERVER_V6, CLIENT_V6).payload(&data(PAYLOAD));
    let others = [
        ("TCP, IPv4", v4.clone().protocol(6).build()),
        ("TCP, IPv6", v6.clone().protocol(6).build()),
        ("datagram, IPv4", v4.build()),
        ("datagram, IPv6", v6.build()),
    ];
    let others = others.into_iter().map(|(name, frame)| (format!("leaving, not ours: {name}"), frame, None));
    let subjects = [Subject::to_peer(), Subject::to_client()].concat().into_iter();
    let servers = subjects.map(|subject| {
        let name = format!("leaving, the server's own, {}", subject.name());
        (name, subject.servers(&data(PAYLOAD)).build(), Some(subject))
    });
    others.chain(servers).collect()
}

/// Nanoseconds of one run at TC, where no program changes these packets.
fn at_tc(program: &SchedClassifier, frame: &[u8]) -> Result<f64> {
    let start = processor::running_time();
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        repeat: RUNS,
        ..TestRunOptions::default()
    })?;
    let time = (processor::running_time() - start).as_secs_f64() * 1e9 / f64::from(RUNS);
    ensure!(result.return_value == TC_NEXT, "answered {} at TC", result.return_value as i32);
    Ok(time)
}

/// The highest median of turn-bpf in the cases whose names begin so, against a limit in nanoseconds.
fn within(figures: &[Figure], what: &str, cases: &str, limit: f64, why: &str) -> Option<Budget> {
    let of = |subject: &str, case: &str| -> Option<f64> {
        let mut figures = figures.iter();
        let figure = figures.find(|figure| figure.subject == subject && figure.case == case)?;
        figure.summary().map(|Summary { median, .. }| median)
    };
    let cases = figures.iter().map(|figure| figure.case.as_str()).filter(|case| case.starts_with(cases));
    let medians = cases.filter_map(|case| Some((case, of(OURS, case)?)));
    let (worst, measured) = medians.max_by(|(_, one), (_, other)| one.total_cmp(other))?;
    let bare = of(BARE_LOOKUP, worst).map(|bare| {
        format!("; a program that looks the same keys up in a map of this kind and does nothing else takes {bare:.0} ns")
    });
    let (what, unit) = (what.to_owned(), "ns".to_owned());
    Some(Budget {
        what,
        limit,
        at_most: true,
        measured,
        unit,
        why: format!("{why}{}", bare.unwrap_or_default()),
    })
}
