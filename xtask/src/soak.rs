//! `cargo xtask soak`: a long time of mixed calls through coturn with turn-bpf, and what became of every packet.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use turn_testkit::coturn::Coturn;
use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::machine::Rest;
use turn_testkit::scratch::ScratchFolder;

use self::call::{Call, Outcome};
use self::mix::{Mix, SLOTS};
use self::report::Report;
use self::sample::Sample;
use crate::command::{self, root};
use crate::demo::progress::Progress;
use crate::{interrupt, release};

mod call;
mod mix;
mod report;
mod sample;

/// Between two samples.
const SAMPLING: Duration = Duration::from_secs(10);
/// How long a full run is, which writes the document.
const FULL_MINUTES: f64 = 60.0;
/// How long turn-bpf may take to forget the last calls.
const FORGETTING: Duration = Duration::from_secs(15);
/// coturn keeps the allocation of a client that has gone without a word for 600 s. None goes so late that its allocation would outlive
/// the run.
const LIFETIME: Duration = Duration::from_secs(630);
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How long. 60 and more write docs/soak.md.
    #[arg(long, default_value_t = FULL_MINUTES)]
    minutes: f64,
    /// Where another sequence of calls comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON document instead of the tables.
    #[arg(long)]
    json: bool,
    /// Use this turn-bpf; neither set up nor build.
    #[arg(long, value_name = "FILE", hide = true)]
    binary: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    interrupt::catch()?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => release::build("soak")?,
    };
    if !command::is_root() {
        return release::run_again_as_root(&binary);
    }
    let report = soak(arguments, &binary)?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if arguments.minutes >= FULL_MINUTES {
        let path = root().join("docs/soak.md");
        fs::write(&path, report.document()).with_context(|| path.display().to_string())?;
        eprintln!("soak: docs/soak.md is written");
    }
    let faults = report.faults();
    for fault in &faults {
        eprintln!("soak: {fault}");
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the threads of the calls share.
struct Shared {
    is_over: AtomicBool,
    underway: AtomicU64,
    outcomes: Mutex<Vec<Outcome>>,
}

fn soak(arguments: &Arguments, binary: &Path) -> Result<Report> {
    let progress = Progress::new();
    let length = Duration::from_secs_f64(arguments.minutes * 60.0);
    progress.line(&format!(
        "soak: {} calls at a time through coturn with turn-bpf, for {} minutes",
        SLOTS.len(),
        arguments.minutes
    ));
    let mut lab = Lab::new(Topology::Two)?;
    lab.attach_pass()?;
    let coturn = Coturn::start(&lab)?;
    let folder = ScratchFolder::new("soak")?;
    let mut daemon =
        Daemon::start(&lab.server, binary, &folder.path().join("control.sock"), lab.interfaces())?;

    let shared =
        Shared { is_over: AtomicBool::new(false), underway: AtomicU64::new(0), outcomes: Mutex::default() };
    let start = Instant::now();
    let machine = Rest::now()?;
    let overflows_before = lab.server.udp_overflows()?;
    let mut samples = vec![Sample::take(start, &mut daemon, &coturn, 0)?];
    let watched = thread::scope(|scope| -> Result<()> {
        for slot in 0..SLOTS.len() {
            let (lab, shared) = (&lab, &shared);
            let mix = Mix::new(arguments.seed, slot, start + length.saturating_sub(LIFETIME));
            scope.spawn(move || run_slot(lab, mix, shared));
        }
        let mut watch = || -> Result<()> {
            let mut due = start + SAMPLING;
            while start.elapsed() < length {
                interrupt::check()?;
                let underway = shared.underway.load(Ordering::Relaxed);
                if Instant::now() >= due {
                    samples.push(Sample::take(start, &mut daemon, &coturn, underway)?);
                    due += SAMPLING;
                }
                let last = samples.last();
                progress.advance(|| {
                    let seconds = start.elapsed().as_secs();
                    let share = last.map_or(0.0, Sample::kernel_share) * 100.0;
                    format!(
                        "soak: {:3} min {:02} s, {underway} calls, {share:.2} % in the kernel",
                        seconds / 60,
                        seconds % 60
                    )
                });
                thread::sleep(POLL);
            }
            Ok(())
        };
        let watched = watch();
        shared.is_over.store(true, Ordering::Relaxed);
        watched
    });
    watched?;

    progress.line("soak: all calls are over");
    let deadline = Instant::now() + FORGETTING;
    let last = loop {
        let sample = Sample::take(start, &mut daemon, &coturn, 0)?;
        if sample.flows == 0 || Instant::now() > deadline {
            break sample;
        }
        thread::sleep(POLL);
    };
    samples.push(last);
    let processors_busy = machine.work_since()?.as_secs_f64() / start.elapsed().as_secs_f64();
    let reasons = daemon.status()?.reasons;
    let overflows = lab.server.udp_overflows()? - overflows_before;
    let outcomes = shared.outcomes.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok(Report::new(
        arguments.minutes,
        arguments.seed,
        processors_busy,
        samples,
        &outcomes,
        overflows,
        reasons,
    ))
}

/// One call after another, until all is over.
fn run_slot(lab: &Lab, mut mix: Mix, shared: &Shared) {
    while !shared.is_over.load(Ordering::Relaxed) {
        let plan = mix.next_call();
        wait(plan.pause, shared);
        if shared.is_over.load(Ordering::Relaxed) {
            return;
        }
        shared.underway.fetch_add(1, Ordering::Relaxed);
        let outcome = match Call::join(lab, plan.clone()) {
            Ok(call) => call.talk(&shared.is_over),
            Err(error) => Outcome::failed(plan, format!("{error:#}")),
        };
        shared.underway.fetch_sub(1, Ordering::Relaxed);
        shared.outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(outcome);
    }
}

fn wait(pause: Duration, shared: &Shared) {
    let end = Instant::now() + pause;
    while Instant::now() < end && !shared.is_over.load(Ordering::Relaxed) {
        thread::sleep(POLL);
    }
}
