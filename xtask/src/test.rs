//! `cargo xtask test`: everything that `cargo test` runs, as root, and one line at the end.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::cargo::{self, Executable, cargo};
use crate::command::as_root;
use crate::{conformance, miri, reliability, setup, vm};

/// Packages whose tests measure what a lab of namespaces does, and therefore get the machine for themselves, one by one.
const SERIAL_PACKAGES: [&str; 2] = ["turn-bpf", "turn-testkit"];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only tests whose names contain this.
    filter: Option<String>,
    /// Boot no other kernels. With a filter none are booted anyway.
    #[arg(long)]
    without_machines: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let executables = cargo::build_tests()?;
    let mut counts = Counts::default();
    let mut broken = Vec::new();
    let mut failed = Vec::new();
    for executable in &executables {
        let mut command = test_command(executable)?;
        command.args(&arguments.filter);
        println!("\n# {} ({})", executable.name, executable.package.display());
        if !run_counted(&mut command, &mut counts, &mut failed)? {
            broken.push(executable.name.as_str());
        }
    }
    let mut documentation = cargo();
    documentation.args(["test", "--doc"]).args(&arguments.filter);
    println!("\n# examples in the documentation");
    if !run_counted(&mut documentation, &mut counts, &mut failed)? {
        broken.push("documentation");
    }
    println!("\n# Miri");
    match miri::of_pinned_toolchain() {
        Some(mut tests) => {
            if !run_counted(tests.args(&arguments.filter), &mut counts, &mut failed)? {
                broken.push("Miri");
            }
        }
        None => {
            println!("skipped: the pinned toolchain has no Miri; `cargo xtask miri` takes a nightly's");
            counts.skipped += 1;
        }
    }
    println!("\n# docs/conformance.md");
    if let Err(error) = conformance::check(&executables) {
        println!("{error:#}");
        broken.push("conformance");
    }
    println!("\n# docs/reliability.md");
    if let Err(error) = reliability::check(&executables) {
        println!("{error:#}");
        broken.push("reliability");
    }
    if arguments.filter.is_none() && !arguments.without_machines {
        println!("\n# the oldest and the newest kernel, in virtual machines");
        match vm::test_ends(&executables) {
            Ok((of_machines, is_fine)) => {
                counts.passed += of_machines.passed;
                counts.failed += of_machines.failed;
                counts.skipped += of_machines.skipped;
                broken.extend((!is_fine).then_some("vm"));
            }
            Err(error) => {
                println!("{error:#}");
                broken.push("vm");
            }
        }
    }
    turn_testkit::lab::remove_leftovers();
    if !broken.is_empty() {
        println!("\nfailed: {}", broken.join(", "));
        failed.iter().for_each(|test| println!("  {test}"));
    }
    let Counts { passed, failed, skipped } = counts;
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A test program, as root, with its tests one by one if it needs the machine for itself.
pub fn test_command(executable: &Executable) -> Result<Command> {
    let mut command = as_root(&executable.path)?;
    command.current_dir(&executable.package).env("CARGO_MANIFEST_DIR", &executable.package);
    let package = executable.package.file_name().unwrap_or_default();
    if SERIAL_PACKAGES.iter().any(|serial| package == *serial) {
        command.arg("--test-threads=1");
    }
    Ok(command)
}

/// Runs a test program, passes its output on, adds up its results, and notes the names of tests that failed; whether it succeeded.
fn run_counted(command: &mut Command, counts: &mut Counts, failed: &mut Vec<String>) -> Result<bool> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run tests")?;
    let stdout = child.stdout.take().context("standard output of the tests")?;
    let mut before = *counts;
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        io::stdout().write_all(&[&line[..], b"\n"].concat())?;
        let line = String::from_utf8_lossy(&line);
        failed.extend(failure(&line).map(str::to_owned));
        if let Some(result) = result(&line) {
            counts.passed += result.passed;
            counts.failed += result.failed;
            counts.skipped += result.skipped;
        }
    }
    let success = child.wait()?.success();
    // A program that dies has no result line.
    before.failed += 1;
    if !success && counts.failed < before.failed {
        counts.failed = before.failed;
    }
    Ok(success)
}

/// Reads libtest's `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
pub fn result(line: &str) -> Option<Counts> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        let part = counts.split("; ").find_map(|part| part.strip_suffix(what))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

/// Reads the name in libtest's `test lab::tests::rules ... FAILED`.
fn failure(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_read() {
        let line = "test result: FAILED. 32 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.64s";
        assert_eq!(result(line), Some(Counts { passed: 32, failed: 1, skipped: 2 }));
        assert_eq!(result("test lab::tests::result ... ok"), None);
        assert_eq!(failure("test lab::tests::result ... FAILED"), Some("lab::tests::result"));
        assert_eq!(failure("test lab::tests::result ... ok"), None);
    }

    #[test]
    fn a_program_that_dies_counts_as_failed() {
        let mut counts = Counts { passed: 3, failed: 1, skipped: 0 };
        assert!(!run_counted(&mut Command::new("false"), &mut counts, &mut Vec::new()).unwrap());
        assert_eq!(counts, Counts { passed: 3, failed: 2, skipped: 0 });
    }
}
