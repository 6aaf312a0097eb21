//! `cargo xtask test`: everything that `cargo test` runs, as root, and one line at the end.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};

use crate::cargo::{self, Executable, cargo};
use crate::command::as_root;
use crate::{conformance, miri, reliability, setup, vm};

/// Packages whose tests measure what a lab of namespaces does, and therefore get the machine for themselves, one by one.
const SERIAL_PACKAGES: [&str; 2] = ["turn-bpf", "turn-testkit"];

/// Of one program.
const MOST_TRIED_AGAIN: usize = 3;

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

/// What came of a test program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Outcome {
    counts: Counts,
    /// Names of the tests that failed; none where the program died before it could tell.
    failed: Vec<String>,
    /// Where the names in `failed` begin of the program whose list is being read.
    listed_from: Option<usize>,
    /// Those that passed when they were run again.
    at_second_try: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let executables = cargo::build_tests()?;
    let mut all = Outcome::default();
    let mut broken = Vec::new();
    for executable in &executables {
        println!("\n# {} ({})", executable.name, executable.package.display());
        let mut outcome = run_counted(test_command(executable)?.args(&arguments.filter))?;
        if is_serial(executable) {
            try_again(executable, &mut outcome)?;
        }
        all.take(&executable.name, outcome, &mut broken);
    }
    println!("\n# examples in the documentation");
    let examples = run_counted(cargo().args(["test", "--doc"]).args(&arguments.filter))?;
    all.take("documentation", examples, &mut broken);
    println!("\n# Miri");
    match miri::of_pinned_toolchain() {
        Some(mut tests) => all.take("Miri", run_counted(tests.args(&arguments.filter))?, &mut broken),
        None => {
            println!("skipped: the pinned toolchain has no Miri; `cargo xtask miri` takes a nightly's");
            all.counts.skipped += 1;
        }
    }
    println!("\n# docs/conformance.md");
    if let Err(error) = conformance::check(&executables) {
        println!("{error:#}");
        broken.push("conformance".to_owned());
    }
    println!("\n# docs/reliability.md");
    if let Err(error) = reliability::check(&executables) {
        println!("{error:#}");
        broken.push("reliability".to_owned());
    }
    if arguments.filter.is_none() && !arguments.without_machines {
        println!("\n# the oldest and the newest kernel, in virtual machines");
        match vm::test_ends(&executables) {
            Ok((of_machines, is_fine)) => {
                all.counts.add(of_machines);
                broken.extend((!is_fine).then(|| "vm".to_owned()));
            }
            Err(error) => {
                println!("{error:#}");
                broken.push("vm".to_owned());
            }
        }
    }
    turn_testkit::lab::remove_leftovers();
    if !all.at_second_try.is_empty() {
        println!("\npassed only when they were run again:");
        all.at_second_try.iter().for_each(|test| println!("  {test}"));
    }
    if !broken.is_empty() {
        println!("\nfailed: {}", broken.join(", "));
        all.failed.iter().for_each(|test| println!("  {test}"));
    }
    let Counts { passed, failed, skipped } = all.counts;
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A test program, as root, with its tests one by one if it needs the machine for itself.
pub fn test_command(executable: &Executable) -> Result<Command> {
    let mut command = as_root(&executable.path)?;
    command.current_dir(&executable.package).env("CARGO_MANIFEST_DIR", &executable.package);
    if is_serial(executable) {
        command.arg("--test-threads=1");
    }
    Ok(command)
}

fn is_serial(executable: &Executable) -> bool {
    let package = executable.package.file_name().unwrap_or_default();
    SERIAL_PACKAGES.iter().any(|serial| package == *serial)
}

/// Runs tests that have failed once more, each by itself. They measure time on a machine that others may have held up meanwhile;
/// whatever is wrong with the project fails again.
fn try_again(executable: &Executable, outcome: &mut Outcome) -> Result<()> {
    // Nobody holds up as many as that.
    if outcome.failed.len() > MOST_TRIED_AGAIN {
        return Ok(());
    }
    for test in std::mem::take(&mut outcome.failed) {
        println!("\n# {test} once more");
        let again = run_counted(test_command(executable)?.args(["--exact", &test]))?;
        if again.counts == (Counts { passed: 1, failed: 0, skipped: 0 }) {
            outcome.counts.failed -= 1;
            outcome.counts.passed += 1;
            outcome.at_second_try.push(test);
        } else {
            outcome.failed.push(test);
        }
    }
    Ok(())
}

/// Runs a test program, passes its output on, and reads what came of it.
fn run_counted(command: &mut Command) -> Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run tests")?;
    let stdout = child.stdout.take().context("standard output of the tests")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        io::stdout().write_all(&[&line[..], b"\n"].concat())?;
        outcome.read(&String::from_utf8_lossy(&line));
    }
    // A program that dies has no result line.
    if !child.wait()?.success() && outcome.counts.failed == 0 {
        outcome.counts.failed = 1;
    }
    Ok(outcome)
}

impl Counts {
    fn add(&mut self, others: Counts) {
        self.passed += others.passed;
        self.failed += others.failed;
        self.skipped += others.skipped;
    }
}

impl Outcome {
    /// Reads one line of what libtest says. The names of tests that failed come last, indented, below the second of two headlines.
    fn read(&mut self, line: &str) {
        if line == "failures:" {
            let listed_from = *self.listed_from.get_or_insert(self.failed.len());
            self.failed.truncate(listed_from);
        } else if let (Some(_), Some(name)) = (self.listed_from, line.strip_prefix("    ")) {
            self.failed.push(name.to_owned());
        } else if let Some(result) = result(line) {
            self.counts.add(result);
            self.listed_from = None;
        }
    }

    /// Adds what came of a program, which is noted as broken where anything has failed.
    fn take(&mut self, program: &str, mut outcome: Outcome, broken: &mut Vec<String>) {
        if outcome.counts.failed > 0 {
            broken.push(program.to_owned());
        }
        self.counts.add(outcome.counts);
        self.failed.append(&mut outcome.failed);
        self.at_second_try.append(&mut outcome.at_second_try);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_line_is_read() {
        let line = "test result: FAILED. 32 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.64s";
        assert_eq!(result(line), Some(Counts { passed: 32, failed: 1, skipped: 2 }));
        assert_eq!(result("test lab::tests::result ... ok"), None);
    }

    #[test]
    fn what_failed_is_named_below_the_second_headline() {
        let said = "running 2 tests\ntest lab::one ... FAILED\n\nfailures:\n\n---- lab::one stdout ----\n    a line that is indented\n\n\n\
            failures:\n    lab::one\n\ntest result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let mut outcome = Outcome::default();
        said.lines().for_each(|line| outcome.read(line));
        let counts = Counts { passed: 1, failed: 1, skipped: 0 };
        assert_eq!(outcome, Outcome { counts, failed: vec!["lab::one".to_owned()], ..Outcome::default() });
    }

    #[test]
    fn a_program_that_dies_counts_as_failed() {
        let outcome = run_counted(&mut Command::new("false")).unwrap();
        let counts = Counts { passed: 0, failed: 1, skipped: 0 };
        assert_eq!(outcome, Outcome { counts, ..Outcome::default() });
    }
}
