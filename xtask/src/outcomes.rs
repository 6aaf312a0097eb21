//! Tests by name: which there are, and how they end.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::cargo::Executable;
use crate::command::output;
use crate::test::test_command;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// How the tests ended that a document names.
#[derive(Debug, Default)]
pub struct Outcomes(BTreeMap<String, Outcome>);

impl Outcomes {
    /// Runs these tests and no others, with these variables in their environment.
    pub fn of_running<'a>(
        named: impl Iterator<Item = &'a String>,
        executables: &[Executable],
        environment: &[(&str, &OsStr)],
    ) -> Result<Self> {
        let named: HashSet<_> = named.collect();
        let mut outcomes = BTreeMap::new();
        for executable in executables {
            let prefix = prefix(executable);
            let tests: Vec<_> = named.iter().filter_map(|name| name.strip_prefix(&prefix)).collect();
            if tests.is_empty() {
                continue;
            }
            println!("\n# {} tests of {} ({})", tests.len(), executable.name, executable.package.display());
            let mut command = test_command(executable)?;
            command.arg("--exact").args(&tests).envs(environment.iter().copied());
            for (test, outcome) in run(&mut command, &tests)? {
                outcomes.insert(format!("{prefix}{test}"), outcome);
            }
        }
        Ok(Self(outcomes))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn get(&self, test: &str) -> Option<Outcome> {
        self.0.get(test).copied()
    }

    /// One line about when and where they were run, and how many passed.
    pub fn summary(&self) -> Result<String> {
        let date = output(Command::new("date").args(["-u", "+%Y-%m-%d"]))?;
        let kernel = output(Command::new("uname").arg("-rm"))?;
        let coturn = output(Command::new("turnserver").arg("--version")).unwrap_or_default();
        let coturn = coturn.lines().last().unwrap_or("of unknown version");
        let passed = self.all(Outcome::Passed).count();
        let [date, kernel] = [date.trim(), kernel.trim()];
        Ok(format!("{date}, Linux {kernel}, coturn {coturn}: {passed} of {} tests passed.", self.len()))
    }

    /// The names of those that ended in this way.
    pub fn all(&self, outcome: Outcome) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, found)| **found == outcome).map(|(name, _)| name.as_str())
    }
}

/// The names of all tests: package, test program, and path in it.
pub fn existing(executables: &[Executable]) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for executable in executables {
        let mut list = Command::new(&executable.path);
        list.current_dir(&executable.package).args(["--list", "--format=terse"]);
        let listed = output(&mut list)?;
        let tests = listed.lines().filter_map(|line| line.strip_suffix(": test"));
        names.extend(tests.map(|test| format!("{}{test}", prefix(executable))));
    }
    Ok(names)
}

fn prefix(executable: &Executable) -> String {
    let package = executable.package.file_name().unwrap_or_default().to_string_lossy();
    format!("{package}::{}::", executable.name)
}

/// Runs a test program, passes its output on, and returns how each of the tests ended.
fn run<'a>(command: &mut Command, tests: &[&'a str]) -> Result<Vec<(&'a str, Outcome)>> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run tests")?;
    let stdout = child.stdout.take().context("standard output of the tests")?;
    let mut text = String::new();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        io::stdout().write_all(&[&line[..], b"\n"].concat())?;
        text.push_str(&String::from_utf8_lossy(&line));
        text.push('\n');
    }
    let success = child.wait()?.success();
    let read = read(&text, tests);
    if success && read.iter().any(|(_, outcome)| *outcome == Outcome::Failed) {
        bail!("the output of {} cannot be read", command.get_program().display());
    }
    Ok(read)
}

/// Reads libtest's output. A test of which nothing is said has failed: its program died.
fn read<'a>(text: &str, tests: &[&'a str]) -> Vec<(&'a str, Outcome)> {
    let outcome = |test: &str| {
        let start = format!("test {test} ... ");
        let rest = text.lines().find_map(|line| line.strip_prefix(&start));
        match rest {
            Some("ok") => Outcome::Passed,
            Some(rest) if rest.starts_with("ignored") => Outcome::Skipped,
            _ => Outcome::Failed,
        }
    };
    tests.iter().map(|test| (*test, outcome(test))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read_from_the_output_of_a_test_program() {
        let text = "\nrunning 3 tests\ntest a::good ... ok\ntest a::bad ... FAILED\ntest a::slow ... ignored, too slow\n";
        let read = read(text, &["a::good", "a::bad", "a::slow", "a::gone"]);
        assert_eq!(
            read,
            [
                ("a::good", Outcome::Passed),
                ("a::bad", Outcome::Failed),
                ("a::slow", Outcome::Skipped),
                ("a::gone", Outcome::Failed)
            ]
        );
    }
}
