//! `cargo xtask vm`: Debian's kernels in QEMU, and in each of them the tests of what depends on the kernel.

use std::fs;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::checks::{Built, Check};
use self::guest::{Message, Plan};
use self::initramfs::Base;
use self::kernels::{KERNELS, Kernel};
use self::machine::Machine;
use self::mirror::{Image, Mirror};
use self::report::{KernelReport, Report};
use self::snapshot::Snapshot;
use crate::cargo::{self, Executable};
use crate::command::root;
use crate::setup::{self, packages};
use crate::{interrupt, test};

mod checks;
mod cpio;
mod guest;
mod initramfs;
mod kernels;
mod machine;
mod mirror;
mod report;
mod snapshot;

/// In the order in which they need each other. What a kernel has built in it has no file of.
const MODULES: [&str; 18] = [
    "llc",
    "stp",
    "mrp",
    "garp",
    "8021q",
    "veth",
    "sch_ingress",
    "cls_bpf",
    "act_bpf",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "nfnetlink",
    "crc32c_generic",
    "libcrc32c",
    "nf_tables",
    "dummy",
    "sch_netem",
];
const SNAPSHOT: &str = "crates/turn-bpf/snapshots/verifier.txt";
const DEBIAN: &str = "http://deb.debian.org";
/// For all kernels together.
const LIMIT: Duration = Duration::from_secs(4 * 3600);
/// The same for what is quick: fetching the kernels, and the machines, which run side by side.
const QUICK_LIMIT: Duration = Duration::from_secs(200);
const CUT_SHORT: &str =
    "skipped: what the table says has not ended had no time to; cargo xtask vm --ends takes its time";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only tests whose names contain one of these.
    filters: Vec<String>,
    /// Only this kernel; may be given several times.
    #[arg(long = "kernel", value_name = "NAME", value_parser = kernel)]
    kernels: Vec<Kernel>,
    /// Only the oldest and the newest kernel that turn-bpf runs on.
    #[arg(long, conflicts_with = "kernels")]
    ends: bool,
    /// What `cargo xtask test` runs: whether the oldest and the newest kernel take all programs and relay a call, side by side.
    #[arg(long, conflicts_with_all = ["kernels", "filters"])]
    quick: bool,
    /// Write what the verifiers say to the snapshot, instead of comparing.
    #[arg(long)]
    update: bool,
    /// Print one JSON document instead of the tables.
    #[arg(long)]
    json: bool,
    /// Show all that the guests' programs say.
    #[arg(long)]
    verbose: bool,
    /// Take the kernels from this mirror of Debian.
    #[arg(long, value_name = "URL", default_value = DEBIAN)]
    mirror: String,
    /// Use the processor's virtualization (/dev/kvm) instead of emulating a processor.
    #[arg(long)]
    kvm: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self {
            filters: Vec::new(),
            kernels: Vec::new(),
            ends: false,
            quick: true,
            update: false,
            json: false,
            verbose: false,
            mirror: DEBIAN.to_owned(),
            kvm: false,
        }
    }
}

fn kernel(name: &str) -> Result<Kernel> {
    let names = || KERNELS.map(|kernel| kernel.name).join(", ");
    KERNELS.into_iter().find(|kernel| kernel.name == name).with_context(|| format!("one of {}", names()))
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    interrupt::catch()?;
    let built = cargo::build(&["test", "--no-run"])?;
    let report = boot(&built, arguments)?;
    let path = root().join(SNAPSHOT);
    let mut snapshot = Snapshot::read(&path)?;
    let differences = snapshot.differences(&report);
    if arguments.update {
        snapshot.update(&report);
        snapshot.write(&path)?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    let mut fine = report.is_fine();
    if arguments.quick && report.is_cut_short() {
        println!("{CUT_SHORT}");
        fine = true;
    }
    if !arguments.update {
        differences.iter().for_each(|difference| eprintln!("{SNAPSHOT}: {difference}"));
        if !differences.is_empty() {
            eprintln!("cargo xtask vm --update writes it anew");
        }
        fine &= !differences.iter().any(|difference| difference.is_worse);
    }
    Ok(if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The part of it that `cargo xtask test` runs: whether the oldest and the newest kernel take the programs, and relay a call. Returns
/// its counts, and whether all is well.
pub fn test_ends(built: &[Executable]) -> Result<(test::Counts, bool)> {
    let report = boot(built, &Arguments::default())?;
    println!("{report}");
    let differences = Snapshot::read(&root().join(SNAPSHOT))?.differences(&report);
    differences.iter().for_each(|difference| println!("{SNAPSHOT}: {difference}"));
    // What a change costs is looked at by those who make it, with `cargo xtask vm`; here counts whether the kernels take the programs.
    if report.is_cut_short() {
        println!("{CUT_SHORT}");
        return Ok((test::Counts { skipped: 1, ..test::Counts::default() }, true));
    }
    Ok((report.counts(), report.is_fine()))
}

fn boot(built: &[Executable], arguments: &Arguments) -> Result<Report> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the kernels are for x86-64, and are not booted on other machines");
    }
    let is_wanted = |kernel: &Kernel| kernel.is_at_an_end || !(arguments.ends || arguments.quick);
    let kernels: Vec<Kernel> = match &arguments.kernels[..] {
        [] => KERNELS.into_iter().filter(is_wanted).collect(),
        named => named.to_vec(),
    };
    packages::ensure(&packages::WANTED_FOR_MACHINES)?;
    let deadline = Instant::now() + if arguments.quick { QUICK_LIMIT } else { LIMIT };
    let cache = root().join(".cache/kernels");
    let scratch = root().join(if arguments.quick { "target/vm/quick" } else { "target/vm" });
    for folder in [&cache, &scratch] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // Absolute, since packages are fetched from inside of it.
    let cache = cache.canonicalize()?;
    let mirror = Mirror::new(&arguments.mirror, &cache, deadline);
    let say = |text: &str| eprintln!("vm: {text}");
    let images =
        kernels.iter().map(|kernel| mirror.fetch(kernel, &MODULES, say)).collect::<Result<Vec<_>>>()?;
    let tests: Vec<Executable> = built.iter().filter(|executable| executable.is_test).cloned().collect();
    // Built with the tests, which find it beside this program.
    let turn_bpf = std::env::current_exe()?.with_file_name("turn-bpf");
    let built =
        Built { tests: &tests, turn_bpf: &turn_bpf, filters: &arguments.filters, is_quick: arguments.quick };
    let mut base = Base::new(&init()?, &checks::programs(&built), &scratch)?;
    base.add_file(&root().canonicalize()?.join("target/bpf/bpfel-unknown-none/bpf/turn-bpf-ebpf"))?;
    tests.iter().for_each(|test| base.add_folder(&test.package));
    let run = |kernel: &Kernel, image: &Image| -> Result<KernelReport> {
        interrupt::check()?;
        let checks = checks::of(kernel, &built);
        let initramfs = scratch.join(format!("{}.cpio", kernel.name));
        let plan =
            Plan { modules: Vec::new(), steps: checks.iter().map(|check| check.step.clone()).collect() };
        base.write(image, &MODULES, plan, &initramfs)?;
        let console = scratch.join(format!("{}.console.log", kernel.name));
        let machine = Machine {
            kernel: &image.kernel,
            initramfs: &initramfs,
            console: &console,
            kvm: arguments.kvm,
            deadline,
        };
        let report = one(kernel, &checks, &machine, arguments.verbose);
        fs::remove_file(&initramfs)?;
        Ok(report)
    };
    let of_each = kernels.iter().zip(&images);
    let reports: Result<Vec<_>> = if arguments.quick {
        thread::scope(|scope| {
            let machines: Vec<_> =
                of_each.map(|(kernel, image)| scope.spawn(|| run(kernel, image))).collect();
            machines
                .into_iter()
                .map(|machine| machine.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect()
        })
    } else {
        of_each.map(|(kernel, image)| run(kernel, image)).collect()
    };
    Ok(Report::new(reports?))
}

/// Boots one machine and says how it goes.
fn one(kernel: &Kernel, checks: &[Check], machine: &Machine<'_>, verbose: bool) -> KernelReport {
    let mut report = KernelReport::new(kernel, checks);
    let start = Instant::now();
    eprintln!("vm: {}: booting", kernel.name);
    let ended = machine.run(|message| {
        match &message {
            Message::Booted { release } => {
                eprintln!("vm: {}: {release} is up after {:.0?}", kernel.name, start.elapsed());
            }
            Message::Line { line, .. } if verbose => eprintln!("vm: {}: {line}", kernel.name),
            _ => {}
        }
        let ended = match &message {
            Message::Ended { step, .. } => Some(*step),
            _ => None,
        };
        report.take(message);
        if let Some(check) = ended.and_then(|step| report.checks.get(step)) {
            eprintln!("vm: {}: {check}", kernel.name);
        }
    });
    if let Err(error) = ended {
        report.fault = Some(format!("{error:#}"));
    }
    report.end(start.elapsed());
    if let Some(fault) = &report.fault {
        if let Some(check) = report.unfinished() {
            eprintln!("vm: {}: {check}", kernel.name);
        }
        eprintln!("vm: {}: {fault}", kernel.name);
    }
    report
}

/// The first process of the guests.
fn init() -> Result<PathBuf> {
    let built = cargo::build(&["build", "--bin", "vm-init"])?;
    built.into_iter().find(|one| one.name == "vm-init").map(|one| one.path).context("no vm-init was built")
}
