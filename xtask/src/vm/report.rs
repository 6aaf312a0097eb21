//! What came of it: a table of checks by kernel, and one of what the verifiers said.

use std::fmt;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use super::checks::{Check, Expected};
use super::guest::Message;
use super::kernels::Kernel;
use super::machine::OUT_OF_TIME;
use crate::test::{self, Counts};

/// All kernels.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: u32,
    pub kernels: Vec<KernelReport>,
}

/// One kernel.
#[derive(Clone, Debug, Serialize)]
pub struct KernelReport {
    pub name: &'static str,
    /// As `uname -r` says; none if it has not come up.
    pub release: Option<String>,
    /// Whether turn-bpf is to run on it, or to refuse.
    pub is_supported: bool,
    pub seconds: f64,
    /// What went wrong that is no check's fault.
    pub fault: Option<String>,
    pub checks: Vec<CheckReport>,
    /// What the verifier said.
    pub programs: Vec<ProgramReport>,
    #[serde(skip)]
    last_line: Option<String>,
}

/// One check in one kernel.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    pub name: &'static str,
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
    pub seconds: f64,
    /// What is wrong, if anything is.
    pub fault: Option<String>,
    #[serde(skip)]
    expected: Expected,
    #[serde(skip)]
    said: String,
}

/// What the verifier said to one program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramReport {
    pub program: String,
    /// Why it was refused, if it was.
    pub refusal: Option<String>,
    pub instructions: Option<u64>,
    /// Instructions that the verifier followed. Kernels before 5.16 do not tell.
    pub verified: Option<u64>,
    /// In bytes.
    pub stack: Option<u64>,
}

impl Report {
    pub fn new(kernels: Vec<KernelReport>) -> Self {
        Self { schema: 1, kernels }
    }

    pub fn is_fine(&self) -> bool {
        self.kernels
            .iter()
            .all(|kernel| kernel.fault.is_none() && kernel.checks.iter().all(|check| check.fault.is_none()))
    }

    /// Whether all that ended is well, and some had no time to end.
    pub fn is_cut_short(&self) -> bool {
        let is_unfinished = |check: &CheckReport| {
            check.failed == 0 && matches!(check.fault.as_deref(), None | Some(NOT_RUN | NOT_ENDED))
        };
        let is_late = |fault: &String| fault.starts_with(OUT_OF_TIME);
        !self.is_fine()
            && self.kernels.iter().all(|kernel| {
                kernel.fault.as_ref().is_none_or(is_late) && kernel.checks.iter().all(is_unfinished)
            })
    }

    /// All tests together; a fault without a test counts as one that failed.
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for kernel in &self.kernels {
            sum.failed += u64::from(kernel.fault.is_some());
            for check in &kernel.checks {
                match (check.expected, &check.fault) {
                    (Expected::Refusal(_), None) => sum.passed += 1,
                    (_, fault) => {
                        sum.passed += check.passed;
                        sum.skipped += check.skipped;
                        sum.failed += check.failed.max(fault.is_some().into());
                    }
                }
            }
        }
        sum
    }
}

impl KernelReport {
    pub fn new(kernel: &Kernel, checks: &[Check]) -> Self {
        let checks = checks.iter().map(|check| CheckReport {
            name: check.name,
            passed: 0,
            failed: 0,
            skipped: 0,
            seconds: 0.0,
            fault: Some(NOT_RUN.into()),
            expected: check.expected,
            said: String::new(),
        });
        Self {
            name: kernel.name,
            release: None,
            is_supported: kernel.is_supported,
            seconds: 0.0,
            fault: None,
            checks: checks.collect(),
            programs: Vec::new(),
            last_line: None,
        }
    }

    /// Takes what the guest told.
    pub fn take(&mut self, message: Message) {
        match message {
            Message::Booted { release } => self.release = Some(release),
            Message::Line { step, line } => {
                self.take_program(&line);
                if let Some(check) = self.checks.get_mut(step) {
                    check.fault = Some(NOT_ENDED.into());
                    if let Some(Counts { passed, failed, skipped }) = test::result(&line) {
                        check.passed += passed;
                        check.failed += failed;
                        check.skipped += skipped;
                    }
                    check.said.push_str(&line);
                    check.said.push('\n');
                }
            }
            Message::Ended { step, code, milliseconds } => {
                if let Some(check) = self.checks.get_mut(step) {
                    check.seconds = Duration::from_millis(milliseconds).as_secs_f64();
                    check.fault = check.expected.fault(code, &check.said);
                }
            }
            Message::Failed { why } => self.fault = Some(why),
            Message::Done => {}
        }
    }

    fn take_program(&mut self, line: &str) {
        // The verifier's last word comes before its statistics.
        if let (true, Some(word)) = (line.starts_with("processed "), self.last_line.take())
            && let Some(program) = self.programs.last_mut()
            && program.refusal.is_some()
        {
            program.refusal = Some(word);
        }
        if !STATISTICS.iter().any(|start| line.starts_with(start)) {
            self.last_line = Some(line.to_owned());
        }
        if let Some(program) = ProgramReport::read(line)
            && !self.programs.iter().any(|other| other.program == program.program)
        {
            self.programs.push(program);
        }
    }

    /// The check that was running when the machine was ended.
    pub fn unfinished(&self) -> Option<&CheckReport> {
        self.checks.iter().find(|check| check.fault.as_deref() == Some(NOT_ENDED))
    }

    /// Nothing more will come.
    pub fn end(&mut self, after: Duration) {
        self.programs.sort_by(|one, other| one.program.cmp(&other.program));
        self.seconds = (after.as_secs_f64() * 10.0).round() / 10.0;
    }
}

/// What is wrong with a check before its first line.
const NOT_RUN: &str = "it was not run";
/// What is wrong with a check from its first line to its end.
const NOT_ENDED: &str = "it has not ended";
/// How lines begin that say how much the verifier has worked.
const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];

impl ProgramReport {
    /// Reads a line of the test `verifier`: `verifier: turn_bpf_xdp instructions=1 verified=2 stack=3`, or the error of a program that
    /// was refused.
    fn read(line: &str) -> Option<Self> {
        if let Some((_, rest)) = line.split_once("the kernel does not take turn-bpf's program ") {
            let (program, why) = rest.split_once(": ")?;
            let why = why.split_once(". Verifier output").map_or(why, |(why, _)| why);
            return Some(Self {
                program: program.into(),
                refusal: Some(why.trim().into()),
                ..Self::default()
            });
        }
        let mut words = line.strip_prefix("verifier: ")?.split(' ');
        let mut report = Self { program: words.next()?.into(), ..Self::default() };
        for word in words {
            let (name, value) = word.split_once('=')?;
            let value = value.parse().ok();
            match name {
                "instructions" => report.instructions = value,
                "verified" => report.verified = value,
                "stack" => report.stack = value,
                _ => {}
            }
        }
        Some(report)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({:.0} s)", self.name, self.cell(), self.seconds)?;
        match &self.fault {
            Some(fault) => write!(f, ": {fault}\n{}", self.said.trim_end()),
            None => Ok(()),
        }
    }
}

impl CheckReport {
    fn cell(&self) -> String {
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        match (&self.fault, self.expected) {
            (Some(_), Expected::Success) if self.failed > 0 => {
                format!("{} FAILED, {} passed{skipped}", self.failed, self.passed)
            }
            (Some(fault), _) if [NOT_RUN, NOT_ENDED].contains(&fault.as_str()) => "not ended".into(),
            (Some(_), _) => "FAILED".into(),
            (None, Expected::Refusal(_)) => "yes".into(),
            (None, Expected::Success) if self.passed == 0 => "done".into(),
            (None, Expected::Success) => format!("{} passed{skipped}", self.passed),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let heading = |kernel: &KernelReport| kernel.release.clone().unwrap_or_else(|| kernel.name.into());
        table.set_header([String::new()].into_iter().chain(self.kernels.iter().map(heading)));
        let mut names: Vec<&str> = Vec::new();
        for check in self.kernels.iter().flat_map(|kernel| &kernel.checks) {
            if !names.contains(&check.name) {
                names.push(check.name);
            }
        }
        for name in names {
            let cell = |kernel: &KernelReport| {
                let check = kernel.checks.iter().find(|check| check.name == name);
                check.map_or_else(|| "-".into(), CheckReport::cell)
            };
            table.add_row([name.to_owned()].into_iter().chain(self.kernels.iter().map(cell)));
        }
        table.add_row(
            ["seconds".to_owned()]
                .into_iter()
                .chain(self.kernels.iter().map(|kernel| format!("{:.0}", kernel.seconds))),
        );
        writeln!(f, "{table}")?;
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["kernel", "program", "", "instructions", "verified", "stack"]);
        for kernel in &self.kernels {
            for program in &kernel.programs {
                table.add_row([vec![kernel.name.to_owned()], program.cells()].concat());
            }
        }
        write!(f, "{table}")?;
        for kernel in &self.kernels {
            for ProgramReport { program, refusal, .. } in &kernel.programs {
                if let Some(refusal) = refusal {
                    write!(f, "\n{}: {program} is refused: {refusal}", kernel.name)?;
                }
            }
        }
        Ok(())
    }
}

impl ProgramReport {
    /// Program, result, and figures.
    pub fn cells(&self) -> Vec<String> {
        let figure = |figure: Option<u64>| figure.map_or_else(|| "-".into(), |figure| figure.to_string());
        let result = if self.refusal.is_some() { "refused" } else { "loads" };
        vec![
            self.program.clone(),
            result.into(),
            figure(self.instructions),
            figure(self.verified),
            figure(self.stack),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_had_no_time_to_end_is_cut_short() {
        let late = "the machine has not ended in time; the console ends with";
        for (machine, check, failed, is_cut_short) in [
            (None, None, 0, false),
            (Some(late), Some(NOT_ENDED), 0, true),
            (Some(late), Some(NOT_RUN), 0, true),
            (Some(late), Some(NOT_ENDED), 1, false),
            (Some(late), Some("it ended with 101"), 1, false),
            (Some("the machine stopped before its time"), Some(NOT_ENDED), 0, false),
        ] {
            let check = CheckReport {
                name: "all programs",
                passed: 0,
                failed,
                skipped: 0,
                seconds: 0.0,
                fault: check.map(str::to_owned),
                expected: Expected::Success,
                said: String::new(),
            };
            let kernel = KernelReport {
                name: "6.1",
                release: None,
                is_supported: true,
                seconds: 0.0,
                fault: machine.map(str::to_owned),
                checks: vec![check],
                programs: Vec::new(),
                last_line: None,
            };
            let report = Report::new(vec![kernel]);
            assert_eq!(report.is_cut_short(), is_cut_short, "{report:?}");
        }
    }
}
