//! `cargo xtask fuzz`: the targets of `fuzz/`, one after the other, each for a while.
//!
//! The layout is that of cargo-fuzz (`cargo fuzz run --sanitizer none TARGET` works too), but the targets are built with nothing
//! but the pinned toolchain: no code of theirs is unsafe, so coverage is all that they need.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::cargo::{self, Executable, cargo};
use crate::command::{self, root};
use crate::setup;
use report::Report;

mod report;
mod target;

/// What cargo-fuzz has the compiler do, without a sanitizer.
const FLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The targets; all of them if none is named.
    targets: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// Write the named inputs in fuzz/corpus anew, and do nothing else.
    #[arg(long)]
    seeds: bool,
    /// Run a target on this one input.
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let mut seeds = cargo();
    seeds.args([
        "run",
        "--quiet",
        "--package",
        "turn-bpf-fuzz",
        "--no-default-features",
        "--example",
        "seeds",
    ]);
    if arguments.seeds {
        command::run(&mut seeds)?;
        return Ok(ExitCode::SUCCESS);
    }
    if command::run(seeds.args(["--", "--check"])).is_err() {
        bail!(
            "the inputs in fuzz/corpus are not those that are made now; `cargo xtask fuzz --seeds` writes them"
        );
    }
    let targets = chosen(build()?, &arguments.targets)?;
    if let Some(input) = &arguments.input {
        let [target] = &targets[..] else { bail!("name the target that {} is for", input.display()) };
        command::run(std::process::Command::new(&target.path).arg(input))?;
        return Ok(ExitCode::SUCCESS);
    }
    let outcomes =
        targets.iter().map(|one| target::run(one, arguments.seconds)).collect::<Result<Vec<_>>>()?;
    let report = Report::new(outcomes);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(if report.has_findings() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn build() -> Result<Vec<Executable>> {
    eprintln!("fuzz: building the targets");
    let host = command::output(
        std::process::Command::new("rustc").current_dir(root()).args(["--print", "host-tuple"]),
    )?;
    let mut command = cargo();
    command
        .args([
            "build",
            "--package",
            "turn-bpf-fuzz",
            "--bins",
            "--profile",
            "fuzz",
            "--locked",
            "--target",
            host.trim(),
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    cargo::executables(command)
}

/// Those that were named, or all.
fn chosen(targets: Vec<Executable>, names: &[String]) -> Result<Vec<Executable>> {
    let known = targets.iter().map(|target| target.name.clone()).collect::<Vec<_>>();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {unknown}, but {}", known.join(", "));
    }
    Ok(targets.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}
