//! What came of it: one table by kind of call, and one over time.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use turn_testkit::machine;

use super::call::Outcome;
use super::mix::{Kind, SLOTS};
use super::sample::Sample;
use crate::demo::report::grouped;

/// About as many rows has the table over time.
const ROWS: usize = 13;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    machine: String,
    minutes: f64,
    seed: u64,
    calls_at_a_time: usize,
    /// Of the whole machine, on average: with all that it did besides.
    processors_busy: f64,
    by_kind: BTreeMap<Kind, Totals>,
    total: Totals,
    kernel_share: f64,
    /// Datagrams that found no room in the receive buffers of the server's sockets.
    server_overflows: u64,
    /// The first is from before all calls, the last from after all of them.
    samples: Vec<Sample>,
    reasons: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// Sums over calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    calls: u64,
    /// Calls that could not be set up, or could not go on.
    calls_failed: u64,
    /// Calls whose client went without a Refresh.
    calls_vanished: u64,
    renewals: u64,
    packets_sent: u64,
    packets_lost: u64,
    packets_reordered: u64,
    packets_duplicated: u64,
    packets_altered: u64,
}

impl Totals {
    fn add(&mut self, outcome: &Outcome) {
        self.calls += 1;
        self.calls_failed += u64::from(outcome.failure.is_some());
        self.calls_vanished += u64::from(outcome.plan.vanishes);
        self.renewals += outcome.renewals;
        for (sent, tally) in outcome.sent.iter().zip(&outcome.tallies) {
            self.packets_sent += sent;
            self.packets_lost += sent.saturating_sub(tally.received);
            self.packets_reordered += tally.reordered;
            self.packets_duplicated += tally.duplicated;
            self.packets_altered += tally.altered + tally.strays;
        }
    }

    fn row(&self, name: &str) -> Vec<String> {
        let mut row = vec![name.to_owned()];
        row.extend(
            [
                self.calls,
                self.calls_failed,
                self.calls_vanished,
                self.renewals,
                self.packets_sent,
                self.packets_lost,
                self.packets_reordered,
                self.packets_duplicated,
                self.packets_altered,
            ]
            .map(grouped),
        );
        row
    }
}

impl Report {
    pub fn new(
        minutes: f64,
        seed: u64,
        processors_busy: f64,
        samples: Vec<Sample>,
        outcomes: &[Outcome],
        server_overflows: u64,
        reasons: BTreeMap<String, u64>,
    ) -> Self {
        let mut by_kind: BTreeMap<Kind, Totals> =
            Kind::ALL.into_iter().map(|kind| (kind, Totals::default())).collect();
        let mut total = Totals::default();
        let mut failures = Vec::new();
        for outcome in outcomes {
            by_kind.entry(outcome.plan.kind).or_default().add(outcome);
            total.add(outcome);
            let who = || format!("{}, {:?}", outcome.plan.kind.name(), outcome.plan.families);
            failures.extend(outcome.failure.as_ref().map(|failure| format!("{}: {failure}", who())));
        }
        Self {
            schema: 1,
            machine: machine::description(),
            minutes,
            seed,
            calls_at_a_time: SLOTS.len(),
            processors_busy,
            by_kind,
            total,
            kernel_share: samples.last().map_or(0.0, Sample::kernel_share),
            server_overflows,
            samples,
            reasons,
            failures,
        }
    }

    /// What must not be. A server that gets no processor for long enough has its sockets overflow, and may be short of what they lost.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.failures.clone();
        let Totals { packets_lost, packets_duplicated, packets_altered, .. } = self.total;
        if packets_lost > self.server_overflows {
            faults.push(format!(
                "{packets_lost} packets lost, of which the server's sockets have lost {}",
                self.server_overflows
            ));
        }
        if packets_duplicated + packets_altered > 0 {
            faults.push(format!("{packets_duplicated} packets duplicated, {packets_altered} altered"));
        }
        if let Some(last) = self.samples.last().filter(|last| last.flows > 0) {
            faults.push(format!("{} flows are left after the last call", last.flows));
        }
        faults
    }

    /// `docs/soak.md`.
    pub fn document(&self) -> String {
        let markdown = |mut table: Table| {
            table.load_style(ASCII_MARKDOWN);
            table.to_string()
        };
        format!(
            "# Soak\n\n\
             Written by `cargo xtask soak --minutes {} --seed {}`; do not edit.\n\n\
             {} calls at a time run through one coturn with turn-bpf between them, one after another: audio is 50 packets a second each \
             way, video is 30 frames of 4 packets a second, and one of 40 packets every 3 seconds. A call lasts between half a minute and a \
             quarter of an hour, its legs are IPv4 or IPv6, every 240 s its clients renew allocation, permission and channel, and one \
             client in four goes without a word. Both ends count what they send and check what they receive, byte for byte.\n\n\
             {}\n\n\
             ## Calls\n\n{}\n\n{}\n\n\
             ## Over time\n\n{}\n\n\
             The last row is from after the last call.\n\n\
             ## Why packets took their way\n\n{}\n",
            self.minutes,
            self.seed,
            self.calls_at_a_time,
            self.machine,
            markdown(self.calls_table()),
            self.summary(),
            markdown(self.time_table()),
            markdown(self.reasons_table()),
        )
    }

    fn summary(&self) -> String {
        let memory = |pick: fn(&mut dyn Iterator<Item = u64>) -> Option<u64>| {
            let mut all = self.samples.iter().map(|sample| sample.turn_bpf_memory_bytes);
            mebibytes(pick(&mut all).unwrap_or(0))
        };
        let last = self.samples.last();
        format!(
            "Relayed in the kernel: {:.2} % of the packets of known flows. Packets that found no room in the server's sockets: {}. \
             Memory of turn-bpf: {} at first, {} at most, {} in the end. CPU time: turn-bpf {:.1} s, coturn {:.1} s. Busy processors of the whole machine, with all that it did besides: {:.1}.",
            self.kernel_share * 100.0,
            grouped(self.server_overflows),
            memory(|all| all.next()),
            memory(|all| all.max()),
            memory(|all| all.last()),
            last.map_or(0.0, |sample| sample.turn_bpf_cpu_seconds),
            last.map_or(0.0, |sample| sample.coturn_cpu_seconds),
            self.processors_busy,
        )
    }

    fn calls_table(&self) -> Table {
        let mut table = Table::new();
        table.set_header([
            "",
            "calls",
            "failed",
            "vanished",
            "renewals",
            "sent",
            "lost",
            "reordered",
            "duplicated",
            "altered",
        ]);
        for (kind, totals) in &self.by_kind {
            table.add_row(totals.row(kind.name()));
        }
        table.add_row(self.total.row("all"));
        align_numbers(&mut table);
        table
    }

    fn time_table(&self) -> Table {
        let mut table = Table::new();
        table.set_header([
            "minutes",
            "calls",
            "allocations",
            "bindings",
            "flows",
            "of these in the kernel",
            "packets in the kernel",
            "packets to the server",
            "share in the kernel",
            "memory",
        ]);
        let step = self.samples.len().div_ceil(ROWS).max(1);
        let last = self.samples.len().saturating_sub(1);
        let mut before: Option<&Sample> = None;
        for (at, sample) in self.samples.iter().enumerate() {
            if at % step != 0 && at != last {
                continue;
            }
            let since = |count: fn(&Sample) -> u64| count(sample) - before.map_or(0, count);
            let (kernel, spilled) =
                (since(|sample| sample.kernel_packets), since(|sample| sample.spilled_packets));
            let share = match kernel + spilled {
                0 => "-".to_owned(),
                packets => format!("{:.2} %", kernel as f64 / packets as f64 * 100.0),
            };
            table.add_row([
                format!("{:.1}", sample.seconds / 60.0),
                sample.calls.to_string(),
                sample.allocations.to_string(),
                sample.bindings.to_string(),
                format!("{} of {}", sample.flows, sample.flows_max),
                sample.flows_armed.to_string(),
                grouped(kernel),
                grouped(spilled),
                share,
                mebibytes(sample.turn_bpf_memory_bytes),
            ]);
            before = Some(sample);
        }
        align_numbers(&mut table);
        table
    }

    fn reasons_table(&self) -> Table {
        let mut table = Table::new();
        table.set_header(["reason", "packets"]);
        for (reason, count) in self.reasons.iter().filter(|(_, count)| **count > 0) {
            table.add_row([reason.clone(), grouped(*count)]);
        }
        align_numbers(&mut table);
        table
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for mut table in [self.calls_table(), self.time_table()] {
            table.load_style(UTF8_FULL_CONDENSED);
            writeln!(f, "{table}")?;
        }
        write!(f, "{}", self.summary())
    }
}

fn align_numbers(table: &mut Table) {
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use turn_testkit::lab::Family;

    use super::super::mix::Plan;
    use super::*;

    fn sample(minutes: u64) -> Sample {
        Sample {
            seconds: minutes as f64 * 60.0,
            calls: 9,
            allocations: 9,
            bindings: 9,
            flows: if minutes == 60 { 0 } else { 18 },
            flows_armed: 18,
            flows_max: 65_536,
            kernel_packets: minutes * 990,
            spilled_packets: minutes * 10,
            turn_bpf_memory_bytes: 20 << 20,
            turn_bpf_cpu_seconds: 1.0,
            coturn_cpu_seconds: 2.0,
        }
    }

    fn outcome(kind: Kind, sent: u64, failure: Option<&str>) -> Outcome {
        let plan = Plan {
            kind,
            stream: 1,
            families: (Family::V4, Family::V6),
            pause: Duration::ZERO,
            length: Duration::from_secs(30),
            vanishes: false,
            channel: 0x4000,
        };
        Outcome {
            sent: [sent, 0],
            failure: failure.map(str::to_owned),
            ..Outcome::failed(plan, String::new())
        }
    }

    fn report(outcomes: &[Outcome], overflows: u64) -> Report {
        Report::new(60.0, 1, 0.5, (0..=60).map(sample).collect(), outcomes, overflows, BTreeMap::new())
    }

    #[test]
    fn only_what_the_server_has_lost_may_be_missing() {
        let outcomes = [outcome(Kind::Audio, 3, None), outcome(Kind::Pair, 4, None)];
        assert_eq!(report(&outcomes, 7).faults(), Vec::<String>::new());
        assert_eq!(report(&outcomes, 6).faults().len(), 1);
        let failed = [outcome(Kind::Video, 0, Some("no answer"))];
        assert_eq!(report(&failed, 0).faults(), ["audio and video, client and peer, (V4, V6): no answer"]);
    }

    #[test]
    fn the_rows_over_time_are_differences() {
        let document = report(&[], 0).document();
        assert!(document.contains("4 950"), "{document}");
        assert!(document.contains("| 60.0 "), "{document}");
        assert!(document.contains("99.00 %"), "{document}");
    }
}
