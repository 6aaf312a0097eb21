//! The page that explains the figures, made from them.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use turn_testkit::measurement::{Budget, Part};

use super::PartName;
use crate::command::root;

/// Processors busy with something else from which on a part's figures are in doubt.
const NOTEWORTHY: f64 = 0.2;

const INTRODUCTION: &str = "\
# Benchmarks

Made by `cargo xtask bench`, which also writes every round of every figure into [bench](bench): do not edit. `cargo xtask bench --only
program,chain` measures parts of it anew, `cargo xtask bench --document` only makes this page again.

## How it is measured

- **Ratios, not records.** Whatever is compared is measured in turn in the same run, round after round. The first round is dropped. A figure
  is the median of the others, with the lowest and the highest; a ratio is taken round by round.
- **Everything is on one virtual machine with virtual links**, client, server, peer and load together. That says how much work a packet is,
  and nothing of network cards.
- **Time of the processor, not on the wall,** where one thread does all the work: what others do meanwhile does not count.
- **The machine has neighbours.** The same program takes 80 to 100 ns for the same packet in some rounds, and 160 to 200 in others, with nothing
  else running on the machine: its host has other guests. Where figures come in two such groups, the lowest says more than the median.
- **A packet that a program rewrites is written anew** before each run, by a program of the benchmark (`crates/turn-bench-ebpf`) that then
  tail-calls the measured one, or sends the frame out (`BPF_F_TEST_XDP_LIVE_FRAMES`). `BPF_PROG_TEST_RUN` would else feed a program its own
  output, and the kernel recycles live frames with whatever is in them.
- **A budget counts for the worst of its cases,** which the table names, and by medians.
- **What a change brings** shows `cargo xtask bench --only program --against FILE`, where FILE is the turn-bench of another build, which has its
  BPF object in it: both run in turn, and the ratios are taken turn by turn. In single figures of this machine a tenth more or less is nothing.

Not in the table, since no run could break them: the clock is the coarse one (`bpf_ktime_get_coarse_ns`), checksums are updated by arithmetic
(RFC 1624), and counters are per processor and without atomic instructions. The memory that a flow takes is under \"From one flow to a million\".
";

/// Writes `docs/benchmarks.md`.
pub fn write() -> Result<()> {
    let mut parts = Vec::new();
    for name in PartName::value_variants() {
        parts.extend(name.read()?.map(|part| (*name, part)));
    }
    let path = root().join("docs/benchmarks.md");
    fs::write(&path, render(&parts)).with_context(|| path.display().to_string())?;
    eprintln!("bench: docs/benchmarks.md is written");
    Ok(())
}

fn render(parts: &[(PartName, Part)]) -> String {
    let mut text = INTRODUCTION.to_owned();
    if let Some((_, part)) = parts.first() {
        let _ = writeln!(text, "\nMachine: {}.", part.machine);
    }
    for (_, part) in parts.iter().filter(|(_, part)| part.processors_busy_before > NOTEWORTHY) {
        let busy = part.processors_busy_before;
        let _ = writeln!(
            text,
            "\nSomething else kept {busy:.1} processors busy before the part `{}` was measured.",
            part.part
        );
    }
    text += "\n## Budgets\n\n| what | budget | measured | |\n|---|---|---|---|\n";
    for budget in parts.iter().flat_map(|(_, part)| &part.budgets) {
        text += &row(budget);
    }
    for (name, part) in parts {
        let _ = write!(text, "\n## {}\n\n{}\n", title(*name), description(*name));
        let _ = write!(
            text,
            "\n![{0}](bench/{0}.svg)\n\nAll rounds: [JSON](bench/{0}.json), [CSV](bench/{0}.csv).\n",
            part.part
        );
        text += "\n| case | what | median | lowest | highest | |\n|---|---|---:|---:|---:|---|\n";
        for figure in &part.figures {
            if let Some(summary) = figure.summary() {
                let [median, lowest, highest] = [summary.median, summary.lowest, summary.highest].map(number);
                let _ = writeln!(
                    text,
                    "| {} | {} | {median} | {lowest} | {highest} | {} |",
                    figure.case, figure.subject, figure.unit
                );
            }
        }
    }
    text
}

fn row(budget: &Budget) -> String {
    let Budget { what, limit, at_most, measured, unit, why } = budget;
    let bound = if *at_most { "at most" } else { "at least" };
    let verdict = if budget.holds() {
        "holds".to_owned()
    } else {
        let because = if why.is_empty() { String::new() } else { format!(": {why}") };
        // Nothing is a share of zero.
        let by = if *limit == 0.0 {
            String::new()
        } else {
            format!(" by {:.0} %", (measured / limit - 1.0).abs() * 100.0)
        };
        format!("**missed**{by}{because}")
    };
    format!("| {what} | {bound} {} {unit} | {} {unit} | {verdict} |\n", number(*limit), number(*measured))
}

fn title(part: PartName) -> &'static str {
    match part {
        PartName::Program => "One run of a program",
        PartName::Chain => "The whole way of a packet",
        PartName::Servers => "Against TURN servers",
        PartName::Growth => "From one flow to a million",
        PartName::Heartbeat => "Heartbeats",
        PartName::ControlPlane => "Ten thousand allocations",
    }
}

fn description(part: PartName) -> &'static str {
    match part {
        PartName::Program => {
            "`BPF_PROG_TEST_RUN`, 200 bytes of application data, one processor. What is shown is the time of the run less the time of the same run \
             with an empty program; \"writing the frame\" is what was taken off, the empty program included. Undoing a changed length, which the \
             empty program does not need, is in turn-bpf's figure. At random keys a packet waits for memory rather than for instructions: for the \
             bucket of the hash table, for the key, and for the flow. \"bare lookup\" is a program that looks the same keys up in a map of the same \
             kind, with as many entries of the same size, reads a word of what it finds, and does nothing else. \"not ours\" is what everybody else's packets pay; \"at TC\" by the program for \
             what comes in at TC, \"leaving\" by the one for what leaves. \"The server's own\" are packets that the server relayed itself, while none of \
             them is awaited. In \"heartbeat\" every packet is one."
        }
        PartName::Chain => {
            "Live frames on one processor: made in one namespace, sent over a veth pair, received, relayed and sent over another pair by the server's \
             namespace, received, counted and dropped in a third. Packets that arrived per second of that processor, for all of this. The bare programs \
             in turn-bpf's place redirect through a map of devices (at TC: by the helper), or transmit, and do nothing else; they are in the same mode \
             and get the same frames. \"generator and counter alone\" counts the packets at the server's interface, without a way through it. Where \
             less than 99 % arrived, the share that did is a line of its own. Leases do not end and heartbeats are not due here."
        }
        PartName::Servers => {
            "Ten clients of a server, from each the same share of the offered packets of 200 bytes toward one peer; the last processor makes and counts \
             them. Clients allocate and bind their channels with sockets of their own. What making and counting costs is measured at the same rate without a \
             server between, and taken off the machine's time. Three seconds each, from heartbeat to heartbeat. \"All the work\" is the processor time of \
             the server, turn-bpf, the load, and the kernel threads for softirqs, which run in their time; the whole machine's is what its processors \
             did not rest. Round trips are of one more client with sockets at both ends. The highest load without loss (one in a thousand) is looked for \
             step by step, in each round from where it was in the last one; steps are 20 to 50 % apart. It is limited by the generator, too, which shares \
             the two processors with what it measures. webrtc-rs's example server loses most of it while it is idle for most of the time, and why was not \
             found; so its figures say more of this load than of that server."
        }
        PartName::Growth => {
            "So many flows in the map, packets of random ones. Below: how long it takes from a ChannelBind success to the first packet that the kernel \
             relays, and from the end of an allocation to the last."
        }
        PartName::Heartbeat => {
            "One flow between real sockets through coturn, with a heartbeat every 250 ms, twelve times as many as by default."
        }
        PartName::ControlPlane => {
            "Ten thousand clients allocate and bind a channel each as fast as coturn answers, without and with turn-bpf."
        }
    }
}

/// Three digits that mean something, more where there are more before the point.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    match magnitude {
        _ if magnitude >= 99.95 => format!("{value:.0}"),
        _ if magnitude >= 9.995 => format!("{value:.1}"),
        _ if magnitude >= 0.0995 || value == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let numbers = [0.0, 0.00123, 0.1234, 1.234, 12.34, 123.4, 123_456.7, -12.34];
        let shown = ["0.00", "0.0012", "0.12", "1.23", "12.3", "123", "123457", "-12.3"];
        assert_eq!(numbers.map(number), shown);
    }

    #[test]
    fn a_missed_budget_says_by_how_much() {
        let budget = |measured| Budget {
            what: "w".into(),
            limit: 0.8,
            at_most: false,
            measured,
            unit: "u".into(),
            why: "y".into(),
        };
        assert_eq!(row(&budget(0.6)), "| w | at least 0.80 u | 0.60 u | **missed** by 25 %: y |\n");
        assert_eq!(row(&budget(0.9)), "| w | at least 0.80 u | 0.90 u | holds |\n");
    }
}
