//! `cargo xtask demo`: a stock coturn without and with turn-bpf, side by side.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::machine;

use crate::{command, interrupt, release};
use half::Half;
use load::Load;
use progress::Progress;

mod capture;
mod half;
pub mod load;
mod offload;
mod probe;
pub mod progress;
pub mod report;
pub mod uclient;

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
        None => release::build("demo")?,
    };
    if !command::is_root() {
        return release::run_again_as_root(&binary);
    }
    show(arguments, &binary)?;
    Ok(ExitCode::SUCCESS)
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
