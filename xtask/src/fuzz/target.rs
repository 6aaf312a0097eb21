//! One target: started, followed, and what it says at the end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cargo::Executable;
use crate::command::root;

/// The longest input that is tried: longer than any packet of a usual network.
const LONGEST: usize = 2048;
const PROGRESS: Duration = Duration::from_secs(10);

/// How a target fared.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Outcome {
    /// The target.
    pub name: String,
    /// How long it ran.
    pub seconds: f64,
    /// Inputs that were run, the same one more than once included.
    pub runs: u64,
    /// Edges between basic blocks that they reached.
    pub coverage: u64,
    /// Inputs that each reached something new.
    pub inputs: u64,
    /// The input that the target found, if any.
    pub found: Option<PathBuf>,
    /// What the target said of it.
    pub complaint: Option<String>,
}

/// Runs a target for so many seconds, or until it finds something. What it learns stays in `target/fuzz-corpus`.
pub fn run(target: &Executable, seconds: u64) -> Result<Outcome> {
    let learned = root().join("target/fuzz-corpus").join(&target.name);
    let artifacts = root().join("fuzz/artifacts").join(&target.name);
    for folder in [&learned, &artifacts] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(&target.path);
    command
        .arg(&learned)
        .arg(root().join("fuzz/corpus").join(&target.name))
        .args([format!("-max_total_time={seconds}"), format!("-max_len={LONGEST}")])
        .args(["-print_final_stats=1", "-timeout=10"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("cannot run {}", target.path.display()))?;
    let lines = BufReader::new(child.stderr.take().context("standard error of the target")?);
    let mut outcome = Outcome { name: target.name.clone(), ..Outcome::default() };
    let mut shown = began;
    for line in lines.split(b'\n') {
        outcome.follow(String::from_utf8_lossy(&line?).trim_end());
        if shown.elapsed() >= PROGRESS {
            shown = Instant::now();
            let Outcome { name, runs, coverage, .. } = &outcome;
            eprintln!("fuzz: {name}: {} s, {runs} runs, {coverage} edges", began.elapsed().as_secs());
        }
    }
    let status = child.wait()?;
    outcome.seconds = began.elapsed().as_secs_f64();
    if !status.success() && outcome.complaint.is_none() {
        outcome.complaint = Some(status.to_string());
    }
    Ok(outcome)
}

impl Outcome {
    /// Reads a line of libFuzzer's.
    fn follow(&mut self, line: &str) {
        if let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once('\t')) {
            let mut words = rest.split_ascii_whitespace();
            self.runs = number.parse().unwrap_or(self.runs);
            while let Some(word) = words.next() {
                let value = match word {
                    "cov:" => &mut self.coverage,
                    "corp:" => &mut self.inputs,
                    _ => continue,
                };
                let number = words.next().and_then(|word| word.split('/').next());
                *value = number.and_then(|number| number.parse().ok()).unwrap_or(*value);
            }
        } else if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
            self.runs = runs.trim().parse().unwrap_or(self.runs);
        } else if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.found = Some(path.into());
        } else if line.contains(" panicked at ") {
            self.complaint = Some(line.to_owned());
        } else if let Some(complaint) = self.complaint.as_mut().filter(|_| self.found.is_none())
            && complaint.lines().count() < 12
            && !["==", "NOTE:", "note:", "SUMMARY:", "MS: ", "0x", "\\", "   "]
                .iter()
                .any(|ours| line.starts_with(ours))
        {
            complaint.push_str(&format!("\n{line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_libfuzzer_are_read() {
        let mut outcome = Outcome::default();
        for line in [
            "INFO: seed corpus: files: 57 min: 51b max: 1481b total: 7521b rss: 27Mb",
            "#186706\tREDUCE cov: 1026 ft: 1707 corp: 180/11832b lim: 1229 exec/s: 20745 rss: 28Mb L: 1/2 MS: 1 EraseBytes-",
            "thread '<unnamed>' (2285) panicked at fuzz/src/lease_sequences.rs:223:17:",
            "NoLease right behind a witness",
            "==2285== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='/x/'; Test unit written to /x/crash-81",
            "stat::number_of_executed_units: 186710",
        ] {
            outcome.follow(line);
        }
        assert_eq!((outcome.runs, outcome.coverage, outcome.inputs), (186_710, 1026, 180));
        assert_eq!(outcome.found, Some("/x/crash-81".into()));
        assert!(
            outcome.complaint.is_some_and(|complaint| complaint.ends_with("NoLease right behind a witness"))
        );
    }
}
