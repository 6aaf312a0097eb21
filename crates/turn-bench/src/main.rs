//! The measuring half of `cargo xtask bench`: each part by itself, as one JSON document on standard output.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use turn_testkit::machine;
use turn_testkit::measurement::{Budget, Figure, Part};

mod chain;
mod object;
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
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum PartName {
    /// What a run of the programs costs.
    Program,
    /// What the whole way of a packet costs.
    Chain,
}

/// What a part has brought.
#[derive(Debug, Default)]
struct Findings {
    figures: Vec<Figure>,
    budgets: Vec<Budget>,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("turn-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    let processors_busy_before = machine::busy_processors().context("/proc/stat")?;
    let start = Instant::now();
    let (name, Findings { figures, budgets }) = match arguments.part {
        PartName::Program => ("program", program::measure(arguments.rounds)?),
        PartName::Chain => ("chain", chain::measure(arguments.rounds)?),
    };
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
