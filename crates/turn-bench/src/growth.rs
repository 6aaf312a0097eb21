//! From one flow to a million: what a packet costs, what a flow takes of memory, and how long it takes to set up.

use std::fs;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use turn_bpf::object::Object as TurnBpf;
use turn_datapath::LeaseTerms;
use turn_snoop::ListeningPorts;
use turn_testkit::cases::subject::Subject;
use turn_testkit::measurement::Budget;

use crate::Findings;
use crate::object::{Bare, Object};
use crate::sources::Sources;
use crate::{processor, rounds};

const FOREVER: LeaseTerms = LeaseTerms { lease: u64::MAX, heartbeat: u64::MAX, rate_cost: 0, joins_until: 0 };
const COUNTS: [u32; 7] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000];
/// As many have to be possible.
const POSSIBLE: u32 = 1_000_000;
/// The fewest flows that a daemon makes room for by default.
const FEWEST: u32 = 65_536;
const PAYLOAD: usize = 200;
const RUNS: u32 = 200_000;
const XDP_TX: u32 = 3;

pub fn measure(count: usize) -> Result<Findings> {
    processor::stay()?;
    let mut bench = Object::load()?;
    let empty = bench.fd(Bare::Empty)?;
    let mut findings = Findings::default();
    for flows in COUNTS {
        let case = if flows == 1 { "1 flow".to_owned() } else { format!("{flows} flows") };
        let before = locked()?;
        let mut turn_bpf = TurnBpf::load(&FOREVER, &ListeningPorts::default(), flows.max(FEWEST), None)?;
        let mut maps = turn_bpf.take_maps()?;
        let memory = locked()? - before;
        let subject = Subject::to_peer().into_iter().next().context("a flow")?;
        let subject = subject.but(|flow| (flow.lease_until, flow.heartbeat_at) = (u64::MAX, u64::MAX));
        let sources = Sources { subject, count: flows };
        let frames = sources.frames(PAYLOAD);
        let ours = turn_bpf.xdp()?.fd()?.try_clone()?;
        findings.figures.extend(rounds::run(count, |report| {
            let start = Instant::now();
            sources.insert(&mut maps)?;
            let inserting = start.elapsed().as_secs_f64() * 1e6 / f64::from(flows);
            let (_, writing) = bench.time(&empty, &frames, RUNS)?;
            let (answer, time) = bench.time(&ours, &frames, RUNS)?;
            ensure!(answer == XDP_TX, "{case}: answered {answer}");
            report(&case, "one packet", "ns", time - writing);
            report(&case, "one map entry from user space", "us", inserting);
            report(
                &case,
                "memory of all maps, by room for flows",
                "bytes per flow",
                memory / f64::from(flows.max(FEWEST)),
            );
            sources.remove(&mut maps);
            Ok(())
        })?);
        if flows == POSSIBLE {
            findings.budgets.push(Budget {
                what: "flows in the map at once, with `--max-flows`".to_owned(),
                limit: f64::from(POSSIBLE),
                at_most: false,
                measured: f64::from(flows),
                unit: "flows".to_owned(),
                why: String::new(),
            });
        }
    }
    Ok(findings)
}

/// Memory of the BPF maps that this process holds, as the kernel says (`memlock` of their descriptors).
fn locked() -> Result<f64> {
    let mut bytes = 0.0;
    for entry in fs::read_dir("/proc/self/fdinfo")?.flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        if info.lines().any(|line| line.starts_with("map_type:")) {
            let memlock = info.lines().find_map(|line| line.strip_prefix("memlock:"));
            bytes += memlock.context("no memlock")?.trim().parse::<f64>()?;
        }
    }
    Ok(bytes)
}
