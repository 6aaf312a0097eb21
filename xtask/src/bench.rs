//! `cargo xtask bench`: what turn-bpf costs and saves, every figure next to what it is compared with, in one run.
//!
//! Each part is a program run of its own that writes files of its own into `docs/bench`, so that one that fails takes no other with
//! it. `docs/benchmarks.md` is made from whatever files are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use turn_testkit::measurement::Part;

use crate::command::root;
use crate::interop::install;
use crate::interop::server::Server;
use crate::{cargo, command, interrupt, release, setup};

mod against;
mod bars;
mod document;
mod load;
mod servers;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<PartName>,
    /// Rounds that count; one more is run before them.
    #[arg(long, default_value_t = 6)]
    rounds: usize,
    /// Measure nothing: make the page and its pictures from the figures that are there.
    #[arg(long)]
    document: bool,
    /// Measure nothing for the page: compare with this other build's turn-bench, turn by turn, in the parts `program` and `growth`.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Use this turn-bpf, and the turn-bench beside it; neither set up nor build.
    #[arg(long, value_name = "FILE", hide = true)]
    binary: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PartName {
    /// What one run of each program costs.
    Program,
    /// The whole way of a packet over virtual links.
    Chain,
    /// Against TURN servers without turn-bpf, at the same load.
    Servers,
    /// From one flow to a million.
    Growth,
    /// What heartbeats cost, and whether they lose or reorder anything.
    Heartbeat,
    /// Ten thousand allocations at once.
    ControlPlane,
}

/// The programs that are run.
struct Programs {
    turn_bpf: PathBuf,
    turn_bench: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    interrupt::catch()?;
    if arguments.document {
        for name in PartName::value_variants() {
            if let Some(part) = name.read()? {
                name.write(&part)?;
            }
        }
        document::write()?;
        return Ok(ExitCode::SUCCESS);
    }
    let parts = if arguments.only.is_empty() { PartName::value_variants() } else { &arguments.only };
    let turn_bpf = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => prepare(parts)?,
    };
    if !command::is_root() {
        return release::run_again_as_root(&turn_bpf);
    }
    let programs = Programs { turn_bench: turn_bpf.with_file_name("turn-bench"), turn_bpf };
    if let Some(other) = &arguments.against {
        against::compare(&programs.turn_bench, other, parts, arguments.rounds)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut broken = Vec::new();
    for part in parts {
        interrupt::check()?;
        let start = Instant::now();
        eprintln!("bench: {}", part.name());
        match part.measure(&programs, arguments.rounds).and_then(|measured| part.write(&measured)) {
            Ok(()) => eprintln!("bench: {} took {:.0} s", part.name(), start.elapsed().as_secs_f64()),
            Err(error) => {
                eprintln!("bench: {}: {error:#}", part.name());
                broken.push(part.name());
            }
        }
    }
    turn_testkit::lab::remove_leftovers();
    document::write()?;
    if !broken.is_empty() {
        bail!("these parts brought nothing: {}", broken.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Sets up, fetches servers, and builds; returns where turn-bpf is.
fn prepare(parts: &[PartName]) -> Result<PathBuf> {
    setup::ensure()?;
    if parts.contains(&PartName::Servers) {
        install::ensure(servers::ALL.iter().flat_map(|server: &Server| server.tools()).copied())?;
    }
    eprintln!("bench: cargo build --release");
    let executables =
        cargo::build(&["build", "--release", "--package", "turn-bpf", "--package", "turn-bench"])?;
    let binary = executables.into_iter().find(|executable| executable.name == "turn-bpf");
    Ok(binary.context("the build has brought no turn-bpf")?.path)
}

impl PartName {
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    fn measure(self, programs: &Programs, rounds: usize) -> Result<Part> {
        if self == Self::Servers {
            return servers::measure(programs, rounds);
        }
        let mut command = Command::new(&programs.turn_bench);
        command.args(["--rounds", &rounds.to_string(), "--binary"]).arg(&programs.turn_bpf).arg(self.name());
        let output = command.stderr(Stdio::inherit()).output().context("cannot run turn-bench")?;
        if !output.status.success() {
            bail!("turn-bench {}: {}", self.name(), output.status);
        }
        serde_json::from_slice(&output.stdout).context("turn-bench printed something strange")
    }

    /// Writes the part's files.
    fn write(self, part: &Part) -> Result<()> {
        let folder = folder();
        fs::create_dir_all(&folder)?;
        let json = serde_json::to_string_pretty(part)? + "\n";
        for (extension, text) in [("json", json), ("csv", csv(part)), ("svg", bars::draw(part))] {
            let path = folder.join(format!("{}.{extension}", self.name()));
            fs::write(&path, text).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// What was measured last, if anything was.
    fn read(self) -> Result<Option<Part>> {
        match fs::read(folder().join(format!("{}.json", self.name()))) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| self.name())?)),
            Err(_) => Ok(None),
        }
    }
}

fn folder() -> PathBuf {
    root().join(Path::new("docs/bench"))
}

fn csv(part: &Part) -> String {
    let mut text = "case,subject,unit,median,lowest,highest,rounds\n".to_owned();
    for figure in &part.figures {
        if let Some(summary) = figure.summary() {
            text += &format!(
                "\"{}\",\"{}\",{},{},{},{},{}\n",
                figure.case,
                figure.subject,
                figure.unit,
                summary.median,
                summary.lowest,
                summary.highest,
                figure.rounds.len()
            );
        }
    }
    text
}
