//! The measuring half of `cargo xtask bench`: each part by itself, as one JSON document on standard output.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use turn_testkit::machine;
use turn_testkit::measurement::{Budget, Figure, Part};

mod chain;
mod control_plane;
mod growth;
mod heartbeat;
mod interface;
mod lookups;
mod object;
mod offer;
mod processor;
mod program;
mod rounds;
mod sources;

/// Measures one part of the benchmark.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    part: PartName,
    /// Rounds that count; one more is run before them.
    #[arg(long, global = true, default_value_t = 6)]
    rounds: usize,
    /// The turn-bpf to run, where a part runs one.
    #[arg(long, global = true, default_value = "target/release/turn-bpf")]
    binary: PathBuf,
    /// Of the parts that have cases, measure only those whose names contain this.
    #[arg(long, global = true, default_value = "")]
    cases: String,
}

#[derive(Debug, Subcommand)]
enum PartName {
    /// What a run of the programs costs.
    Program,
    /// What the whole way of a packet costs.
    Chain,
    /// From one flow to a million.
    Growth,
    /// What heartbeats send to the server, and whether they do harm.
    Heartbeat,
    /// Ten thousand allocations at once, and how fast single ones are followed.
    ControlPlane,
    /// No part by itself: a load for what another program measures.
    Offer(offer::Arguments),
}

/// What a part has brought.
#[derive(Debug, Default)]
struct Findings {
    figures: Vec<Figure>,
    budgets: Vec<Budget>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.part {
        PartName::Offer(offered) => offer::run(offered),
        PartName::Program => measure("program", || program::measure(arguments.rounds, &arguments.cases)),
        PartName::Chain => measure("chain", || chain::measure(arguments.rounds, &arguments.cases)),
        PartName::Growth => measure("growth", || growth::measure(arguments.rounds)),
        PartName::Heartbeat => measure("heartbeat", || heartbeat::measure(&arguments.binary)),
        PartName::ControlPlane => {
            measure("control-plane", || control_plane::measure(&arguments.binary, arguments.rounds))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turn-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(name: &str, part: impl FnOnce() -> Result<Findings>) -> Result<()> {
    let processors_busy_before = machine::busy_processors().context("/proc/stat")?;
    let start = Instant::now();
    let Findings { figures, budgets } = part()?;
    let part = Part {
        schema: 1,
        part: name.to_owned(),
        machine: machine::description(),
        processors_busy_before,
        seconds: start.elapsed().as_secs_f64(),
        figures,
        budgets,
    };
    println!("{}", serde_json::to_string_pretty(&part)?);
    Ok(())
}
