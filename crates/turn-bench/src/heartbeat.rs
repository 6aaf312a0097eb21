//! Heartbeats: how many packets they send to the server, and whether any packet is lost, duplicated or overtaken by them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use turn_testkit::measurement::{Budget, Figure};
use turn_testkit::offload::{OffloadOptions, PATIENCE};
use turn_testkit::traffic::{Channel, Sink, Traffic};

use crate::Findings;

/// A twelfth of the default, so that there are many.
const HEARTBEAT: Duration = Duration::from_millis(250);
const LEASE: Duration = Duration::from_secs(2);
const CHANNEL: u16 = 0x4000;
/// Packets per second, and how many of them.
const LOADS: [(u32, u32); 5] =
    [(100, 1000), (1000, 10_000), (5000, 100_000), (20_000, 100_000), (50_000, 200_000)];
/// The rate that the budget is about.
const BUDGETED: u32 = 5000;
/// The rates at which the share of heartbeats is a budget: packets apart, and packets that come while the server works.
const PER_HEARTBEAT: [u32; 2] = [100, BUDGETED];

pub fn measure(binary: &Path) -> Result<Findings> {
    let binary = binary.to_str().context("a path that is no text")?;
    let offload = OffloadOptions::new(binary).terms(HEARTBEAT, LEASE).start();
    let mut findings = Findings::default();
    for (at, (rate, packets)) in LOADS.into_iter().enumerate() {
        eprintln!("bench: {packets} packets, {rate} per second");
        let stream = at as u32 + 1;
        let peer = offload.peer();
        let (mut client, _) = offload.allocated_client();
        offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
        let sink = Sink::start(peer, stream);
        let before = offload.session(&client, CHANNEL).context("no session")?.client_to_peer;
        let heartbeats_before = offload.count("heartbeat");
        let duration = Duration::from_secs_f64(f64::from(packets) / f64::from(rate));
        let traffic = Traffic { stream, sizes: 100..=100, rate, duration };
        let sent = traffic.one_way(&mut Channel { client: &mut client, number: CHANNEL })?;
        let tally = sink.wait_for(sent, PATIENCE);
        let after = offload.session(&client, CHANNEL).context("no session")?.client_to_peer;
        let case = format!("{rate} packets per second");
        let mut add = |subject: &str, unit: &str, value: f64| {
            let (case, subject, unit) = (case.clone(), subject.to_owned(), unit.to_owned());
            findings.figures.push(Figure { case, subject, unit, rounds: vec![value] });
        };
        let heartbeats = offload.count("heartbeat") - heartbeats_before;
        let to_server = after.spilled_packets - before.spilled_packets;
        let lost = sent - tally.received;
        let reordered = tally.reordered as f64;
        add("packets sent", "packets", sent as f64);
        add("heartbeats", "packets", heartbeats as f64);
        add("went to the server", "packets", to_server as f64);
        add("lost", "packets", lost as f64);
        add("duplicated or altered", "packets", (tally.duplicated + tally.altered) as f64);
        add("reordered", "packets", reordered);
        add("went to the server per heartbeat", "per heartbeat", to_server as f64 / heartbeats.max(1) as f64);
        add("reordered per heartbeat", "per heartbeat", reordered / heartbeats.max(1) as f64);
        if PER_HEARTBEAT.contains(&rate) {
            findings.budgets.push(Budget {
                what: format!("packets that go to the server per flow, direction and heartbeat, at {rate} per second"),
                limit: 1.0,
                at_most: true,
                measured: to_server as f64 / heartbeats.max(1) as f64,
                unit: "packets".to_owned(),
                why: "those that come before the server has relayed the heartbeat go to it, too, lest they overtake it".to_owned(),
            });
        }
        if rate == BUDGETED {
            let faults = [
                ("lost", lost as f64),
                ("duplicated or altered", (tally.duplicated + tally.altered) as f64),
                ("reordered", reordered),
            ];
            findings.budgets.extend(faults.map(|(what, measured)| Budget {
                what: format!("{what} of {sent} packets in {heartbeats} heartbeats, at {rate} per second"),
                limit: 0.0,
                at_most: true,
                measured,
                unit: "packets".to_owned(),
                why: "the server was held up for longer than turn-bpf waits for it".to_owned(),
            }));
        }
    }
    Ok(findings)
}
