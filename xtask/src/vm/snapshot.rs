//! What the kernels' verifiers said last time, in a file that is kept: what a change costs shows in its diff.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::report::{ProgramReport, Report};

/// By how much a figure may grow before it is a failure and not only a remark: kernels' bug fixes change what their verifiers count, and
/// every change of the programs does.
const TOLERANCE_PERCENT: u64 = 10;

const HEADER: &str = "\
# What the verifiers of Debian's kernels say to turn-bpf's programs. Written by `cargo xtask vm --update`, compared by `cargo xtask vm`.
# Instructions: as loaded. Verified: those that the verifier followed on all ways. Stack: in bytes, of all functions on top of each other.
";

/// The file's rows, by kernel and program.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    rows: BTreeMap<(usize, String, String), Vec<String>>,
}

/// Something that is not as it was.
#[derive(Clone, Debug)]
pub struct Difference {
    what: String,
    /// Whether it is more than a remark.
    pub is_worse: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.is_worse { "worse: " } else { "" }, self.what)
    }
}

impl Snapshot {
    /// The file; without one there are no rows.
    pub fn read(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.with_context(|| path.display().to_string())?,
        };
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut snapshot = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if let [kernel, program, figures @ ..] = &words[..]
                && kernel != HEADINGS[0]
            {
                snapshot.rows.insert(key(kernel, program), figures.to_vec());
            }
        }
        snapshot
    }

    /// What the report says that the file does not.
    pub fn differences(&self, report: &Report) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (kernel, program) in programs(report) {
            let now = program.cells()[1..].to_vec();
            let Some(before) = self.rows.get(&key(kernel, &program.program)) else {
                let what = format!("{kernel} {}: has no row", program.program);
                differences.push(Difference { what, is_worse: true });
                continue;
            };
            for ((heading, before), now) in HEADINGS[2..].iter().zip(before).zip(&now) {
                if before != now {
                    let what = format!("{kernel} {}: {heading} was {before}, is {now}", program.program);
                    differences.push(Difference { what, is_worse: is_worse(before, now) });
                }
            }
        }
        differences
    }

    /// Takes over the rows of the kernels that were run.
    pub fn update(&mut self, report: &Report) {
        let ran: Vec<_> = report
            .kernels
            .iter()
            .filter(|kernel| !kernel.programs.is_empty())
            .map(|kernel| kernel.name)
            .collect();
        self.rows.retain(|(_, kernel, _), _| !ran.contains(&kernel.as_str()));
        for (kernel, program) in programs(report) {
            self.rows.insert(key(kernel, &program.program), program.cells()[1..].to_vec());
        }
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, self.text()).with_context(|| path.display().to_string())
    }

    fn text(&self) -> String {
        let mut lines = vec![HEADINGS.map(str::to_owned).to_vec()];
        for ((_, kernel, program), figures) in &self.rows {
            lines.push([&[kernel.clone(), program.clone()], &figures[..]].concat());
        }
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(String::len).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
        let mut text = HEADER.to_owned();
        for line in &lines {
            let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0..3 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

const HEADINGS: [&str; 6] = ["kernel", "program", "result", "instructions", "verified", "stack"];

/// In the order of the kernels.
fn key(kernel: &str, program: &str) -> (usize, String, String) {
    let place = super::KERNELS.iter().position(|one| one.name == kernel).unwrap_or(usize::MAX);
    (place, kernel.to_owned(), program.to_owned())
}

fn programs(report: &Report) -> impl Iterator<Item = (&'static str, &ProgramReport)> {
    report.kernels.iter().flat_map(|kernel| kernel.programs.iter().map(|program| (kernel.name, program)))
}

fn is_worse(before: &str, now: &str) -> bool {
    match (before.parse::<u64>(), now.parse::<u64>()) {
        (Ok(before), Ok(now)) => now * 100 > before * (100 + TOLERANCE_PERCENT),
        _ => before == "loads",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_as_it_was_written() {
        let text = format!(
            "{HEADER}kernel  program       result   instructions  verified  stack\n\
             5.10    turn_bpf_xdp  refused             -         -      -\n\
             6.1     turn_bpf_xdp  loads            4000      6000    320\n"
        );
        assert_eq!(Snapshot::parse(&text).text(), text);
    }

    #[test]
    fn what_grows_much_or_loads_no_more_is_worse() {
        let cases = [
            ("100", "110", false),
            ("100", "111", true),
            ("100", "1", false),
            ("loads", "refused", true),
            ("refused", "loads", false),
            ("-", "5", false),
        ];
        for (before, now, expected) in cases {
            assert_eq!(is_worse(before, now), expected, "{before} {now}");
        }
    }
}
