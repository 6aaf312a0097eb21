//! What a test of a fault has measured, for `cargo xtask reliability`, which writes it down in docs/reliability.md.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Names the file to which tests append their figures, one JSON document a line. Without it they append nothing.
pub const FILE: &str = "TURN_BPF_FIGURES";
/// Where it is set, long tests run to their full length.
pub const FULL: &str = "TURN_BPF_FULL";

/// The figures of one run of one fault.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// The id of the fault's row in docs/reliability.toml.
    pub fault: String,
    /// Packets that a perfect path would have delivered, and of how many.
    pub lost: Option<(u64, u64)>,
    /// Seconds for which the kernel went on relaying what the server no longer relayed.
    pub outlived: Option<f64>,
    /// Seconds from the end of the fault until both directions were relayed in the kernel again.
    pub healed: Option<f64>,
    /// Anything else that was counted, with its unit.
    pub counts: Vec<(String, u64)>,
}

impl Figures {
    /// No figures yet.
    pub fn of(fault: &str) -> Self {
        Self { fault: fault.to_owned(), lost: None, outlived: None, healed: None, counts: Vec::new() }
    }

    /// So many of so many packets were lost.
    pub fn lost(self, lost: u64, sent: u64) -> Self {
        Self { lost: Some((lost, sent)), ..self }
    }

    /// The kernel went on relaying for so long.
    pub fn outlived(self, time: Duration) -> Self {
        Self { outlived: Some(time.as_secs_f64()), ..self }
    }

    /// Both directions were in the kernel again after so long.
    pub fn healed(self, time: Duration) -> Self {
        Self { healed: Some(time.as_secs_f64()), ..self }
    }

    /// Counted besides.
    pub fn count(mut self, what: &str, count: u64) -> Self {
        self.counts.push((what.to_owned(), count));
        self
    }

    /// Hands the figures in.
    pub fn report(self) {
        println!("{self:?}");
        let Some(path) = env::var_os(FILE) else { return };
        let line = serde_json::to_string(&self).expect("figures are plain data");
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("the file of figures");
        writeln!(file, "{line}").expect("the file of figures");
    }

    /// The worst of two runs of the same fault.
    pub fn worst(self, other: Self) -> Self {
        let worst = |one: Option<f64>, other: Option<f64>| match (one, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        let mut counts = self.counts;
        for (what, count) in other.counts {
            match counts.iter_mut().find(|(known, _)| *known == what) {
                Some((_, known)) => *known = count.max(*known),
                None => counts.push((what, count)),
            }
        }
        Self {
            fault: self.fault,
            lost: match (self.lost, other.lost) {
                (Some(one), Some(other)) if (other.0, one.1) > (one.0, other.1) => Some(other),
                (one, other) => one.or(other),
            },
            outlived: worst(self.outlived, other.outlived),
            healed: worst(self.healed, other.healed),
            counts,
        }
    }
}

/// How often a long test does what it does: the first number, or the second where `cargo xtask reliability` wants it all.
pub fn times(short: u32, full: u32) -> u32 {
    if env::var_os(FULL).is_some() { full } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_two_runs_has_the_worse_of_each_figure() {
        let second = Duration::from_secs(1);
        let one = Figures::of("x").lost(3, 100).healed(second).count("a", 5);
        let other =
            Figures::of("x").lost(2, 10).healed(second * 2).outlived(second).count("a", 4).count("b", 1);
        let expected =
            Figures::of("x").lost(3, 100).healed(second * 2).outlived(second).count("a", 5).count("b", 1);
        assert_eq!(one.clone().worst(other.clone()), expected);
        let mirrored = other.worst(one);
        assert_eq!((mirrored.lost, mirrored.healed), (expected.lost, expected.healed));
        let (fewer, more) = (Figures::of("x").lost(0, 10), Figures::of("x").lost(0, 1000));
        assert_eq!(more.clone().worst(fewer.clone()).lost, fewer.worst(more).lost);
    }
}
