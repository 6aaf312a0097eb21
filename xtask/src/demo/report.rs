//! The table at the end.

use std::fmt;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use turn_testkit::lab::Topology;
use turn_testkit::machine;

use super::half::Measurement;
use super::load::Load;

/// Processors busy with something else from which on the whole machine's figures are in doubt.
const NOTEWORTHY: f64 = 0.1;

/// Both halves.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: u32,
    machine: String,
    topology: &'static str,
    load: Load,
    /// Processors that were busy with something else before the demo; it is in the whole machine's figures.
    processors_busy_before: f64,
    without: Measurement,
    with: Option<Measurement>,
}

impl Report {
    pub fn new(
        topology: Topology,
        load: &Load,
        processors_busy_before: f64,
        without: Measurement,
        with: Option<Measurement>,
    ) -> Self {
        let topology = match topology {
            Topology::One => "one",
            Topology::Two => "two",
        };
        Self {
            schema: 1,
            machine: machine::description(),
            topology,
            load: *load,
            processors_busy_before,
            without,
            with,
        }
    }
}

type Row = (&'static str, fn(&Measurement) -> String);

const ROWS: [Row; 12] = [
    ("packets sent by clients", |half| grouped(half.packets_sent)),
    ("packets that came back", |half| grouped(half.packets_received)),
    ("packets lost", |half| grouped(half.packets_lost)),
    ("packets relayed, both ways", |half| grouped(half.packets_relayed)),
    ("relayed in the kernel", |half| {
        percent(half.packets_relayed_in_kernel as f64, half.packets_relayed as f64)
    }),
    ("coturn, CPU seconds", |half| format!("{:.2}", half.coturn_cpu_seconds)),
    ("turn-bpf, CPU seconds", |half| {
        half.turn_bpf_cpu_seconds.map_or("-".into(), |seconds| format!("{seconds:.2}"))
    }),
    ("generator and peer, CPU seconds", |half| format!("{:.2}", half.generator_and_peer_cpu_seconds)),
    ("whole machine, CPU seconds", |half| format!("{:.2}", half.machine_cpu_seconds)),
    ("whole machine, CPU per relayed packet", |half| per_packet(half, half.machine_cpu_seconds)),
    ("  the same without generator and peer", |half| {
        per_packet(half, half.machine_cpu_seconds - half.generator_and_peer_cpu_seconds)
    }),
    ("round trip, median / 99 %", |half| match (half.round_trip_median_us, half.round_trip_p99_us) {
        (Some(median), Some(p99)) => format!("{median:.0} / {p99:.0} us"),
        _ => "-".into(),
    }),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let mut header = vec!["", "without turn-bpf"];
        header.extend(self.with.as_ref().map(|_| "with turn-bpf"));
        table.set_header(header);
        for (label, show) in ROWS {
            let mut row = vec![label.to_owned(), show(&self.without)];
            row.extend(self.with.as_ref().map(show));
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let Load { clients, message_size, interval_ms, .. } = self.load;
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "topology {}; {clients} clients, a packet of {message_size} bytes every {interval_ms} ms each, echoed by the peer",
            self.topology
        )?;
        if self.processors_busy_before > NOTEWORTHY {
            writeln!(
                f,
                "note: something else kept {:.1} processors busy before; the whole machine's figures include it",
                self.processors_busy_before
            )?;
        }
        write!(f, "{table}")
    }
}

fn per_packet(half: &Measurement, seconds: f64) -> String {
    if half.packets_relayed == 0 {
        return "-".into();
    }
    format!("{:.2} us", seconds * 1e6 / half.packets_relayed as f64)
}

fn percent(part: f64, whole: f64) -> String {
    if whole == 0.0 { "-".into() } else { format!("{:.2} %", part / whole * 100.0) }
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
    }
}
