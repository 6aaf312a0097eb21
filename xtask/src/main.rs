//! The one task runner: `cargo xtask <task>`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod cargo;
mod ci;
mod command;
mod conformance;
mod demo;
mod fuzz;
mod interop;
mod interrupt;
mod miri;
mod outcomes;
mod package;
mod release;
mod reliability;
mod setup;
mod soak;
mod test;
mod vm;

/// Tasks of the turn-bpf project.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the other tasks need: Debian packages, the toolchain's source, bpf-linker. Does nothing the second time.
    Setup(setup::Arguments),
    /// Show a stock coturn without and with turn-bpf, in a network of its own. About a minute and a half.
    Demo(demo::Arguments),
    /// Run all tests, as root.
    Test(test::Arguments),
    /// Run the tests that docs/conformance.toml names, and write docs/conformance.md.
    Conformance(conformance::Arguments),
    /// Run servers and clients of others, each with each, without and with turn-bpf, and write docs/interop.md.
    Interop(interop::Arguments),
    /// Run mixed calls through coturn with turn-bpf for an hour, and write docs/soak.md.
    Soak(soak::Arguments),
    /// Run the tests of faults and of forged load in full, and write docs/reliability.md. Some minutes.
    Reliability(reliability::Arguments),
    /// Measure what turn-bpf costs and saves, and write docs/benchmarks.md. About twenty minutes.
    Bench(bench::Arguments),
    /// Give the fuzz targets a minute each, or as long as you say.
    Fuzz(fuzz::Arguments),
    /// Run the tests of turn-wire, turn-datapath and turn-snoop under Miri, where a toolchain has it.
    Miri(miri::Arguments),
    /// Boot older and newer kernels in QEMU, and run tests in each.
    Vm(vm::Arguments),
    /// Build the Debian package, and with --check install it in a fresh Debian and have it relay a call.
    Package(package::Arguments),
    /// Check format, lints and tests, as the CI does.
    Ci,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Test(arguments) => test::run(&arguments),
        Task::Conformance(arguments) => conformance::run(&arguments),
        Task::Interop(arguments) => interop::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Reliability(arguments) => reliability::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Miri(arguments) => miri::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Package(arguments) => package::run(&arguments),
        Task::Ci => ci::run(),
    };
    match done {
        Ok(code) => code,
        Err(error) if interrupt::is_requested() => {
            eprintln!("interrupted; cleaned up ({error:#})");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
