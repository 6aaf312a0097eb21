//! `cargo xtask demo`: a stock coturn without and with turn-bpf, side by side.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use turn_testkit::lab::{Lab, Topology};

use crate::cargo;
use crate::command::as_root;
use crate::{command, interrupt, setup};
use half::Half;
use load::Load;
use progress::Progress;

mod capture;
mod half;
mod load;
mod machine;
mod offload;
mod probe;
mod progress;
mod report;
mod uclient;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How the server is connected: clients and peers through one interface, or through two.
    #[arg(long, value_enum, default_value_t = TopologyChoice::One)]
    topology: TopologyChoice,
    /// Keep a capture of every wire in this folder. The load is a quarter then.
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
    /// Print one JSON document instead of the table.
    #[arg(long)]
    json: bool,
    /// Use this turn-bpf; neither set up nor build.
    #[arg(long, value_name = "FILE", hide = true)]
    binary: Option<PathBuf>,
    /// Measure only coturn by itself.
    #[arg(long, hide = true)]
    without_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TopologyChoice {
    One,
    Two,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    interrupt::catch()?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => prepare()?,
    };
    if !command::is_root() {
        return run_as_root(arguments, &binary);
    }
    show(arguments, &binary)?;
    Ok(ExitCode::SUCCESS)
}

/// Sets up and builds turn-bpf; returns where it is.
fn prepare() -> Result<PathBuf> {
    setup::ensure()?;
    eprintln!("demo: cargo build --release");
    let executables = cargo::build(&["build", "--release", "--package", "turn-bpf"])?;
    let binary = executables.into_iter().find(|executable| executable.name == "turn-bpf");
    Ok(binary.context("the build has brought no turn-bpf")?.path)
}

/// Only what comes after the build needs root, and nothing that was built should belong to it.
fn run_as_root(arguments: &Arguments, binary: &Path) -> Result<ExitCode> {
    let mut command = as_root(std::env::current_exe()?)?;
    let mut words: Vec<OsString> = vec!["demo".into(), "--topology".into()];
    words.push(arguments.topology.to_possible_value().context("topology")?.get_name().into());
    words.extend(["--binary".into(), binary.into()]);
    if let Some(folder) = &arguments.pcap {
        words.extend(["--pcap".into(), std::path::absolute(folder)?.into()]);
    }
    words.extend(arguments.json.then(|| "--json".into()));
    words.extend(arguments.without_only.then(|| "--without-only".into()));
    let status = command.args(words).status().context("cannot run sudo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

fn show(arguments: &Arguments, binary: &Path) -> Result<()> {
    let progress = Progress::new();
    let topology = match arguments.topology {
        TopologyChoice::One => Topology::One,
        TopologyChoice::Two => Topology::Two,
    };
    let load = if arguments.pcap.is_some() { Load::FOR_CAPTURES } else { Load::DEFAULT };
    progress.line("demo: making a network of namespaces");
    let busy_before = machine::busy_processors()?;
    let mut lab = Lab::new(topology)?;
    lab.attach_pass()?;
    let half = |offload: Option<&Path>| {
        Half { lab: &lab, load: &load, offload, captures: arguments.pcap.as_deref(), progress: &progress }
            .run()
    };
    let without = half(None)?;
    let with = if arguments.without_only { None } else { Some(half(Some(binary))?) };
    drop(lab);
    let report = report::Report::new(topology, &load, busy_before, without, with);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
