//! Figures of a benchmark: what was measured in each round, and what is asked of it.

use serde::{Deserialize, Serialize};

/// One part of the benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Part {
    /// 1.
    pub schema: u32,
    /// Its name.
    pub part: String,
    /// Processors, kernel and stock TURN server.
    pub machine: String,
    /// How many processors were busy with something else just before.
    pub processors_busy_before: f64,
    /// How long it took.
    pub seconds: f64,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// What is asked of it.
    pub budgets: Vec<Budget>,
}

/// One quantity, in every round that counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// Under which conditions; the same for subjects that are compared.
    pub case: String,
    /// What was measured.
    pub subject: String,
    /// Unit of the values.
    pub unit: String,
    /// One value per round; the rounds of figures of one case belong together.
    pub rounds: Vec<f64>,
}

/// A budget, and what was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Budget {
    /// What is limited.
    pub what: String,
    /// The limit.
    pub limit: f64,
    /// Whether values above the limit break it; else those below do.
    pub at_most: bool,
    /// What was measured.
    pub measured: f64,
    /// Unit of both.
    pub unit: String,
    /// What stands in the way, where it does not hold.
    #[serde(default)]
    pub why: String,
}

/// The middle of some values, and how far they spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the values are not above it, half not below.
    pub median: f64,
    /// The lowest value.
    pub lowest: f64,
    /// The highest value.
    pub highest: f64,
}

impl Summary {
    /// Of these values; none where there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let above = *sorted.get(middle)?;
        let median = if sorted.len() % 2 == 1 { above } else { (sorted.get(middle - 1)? + above) / 2.0 };
        Some(Self { median, lowest: *sorted.first()?, highest: *sorted.last()? })
    }
}

impl Figure {
    /// The values in short.
    pub fn summary(&self) -> Option<Summary> {
        Summary::of(&self.rounds)
    }

    /// The same quantity as a share of another one, round by round.
    pub fn ratio_to(&self, other: &Self) -> Option<Summary> {
        let ratios: Vec<f64> =
            self.rounds.iter().zip(&other.rounds).map(|(own, other)| own / other).collect();
        Summary::of(&ratios)
    }
}

impl Part {
    /// The figure of a subject in a case.
    pub fn figure(&self, case: &str, subject: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.case == case && figure.subject == subject)
    }

    /// All cases, in the order in which they were measured.
    pub fn cases(&self) -> Vec<&str> {
        let mut cases: Vec<&str> = Vec::new();
        for figure in &self.figures {
            if !cases.contains(&figure.case.as_str()) {
                cases.push(&figure.case);
            }
        }
        cases
    }
}

impl Budget {
    /// Whether the measured value is within the limit.
    pub fn holds(&self) -> bool {
        if self.at_most { self.measured <= self.limit } else { self.measured >= self.limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let summary = |values: &[f64]| Summary::of(values).map(|s| (s.lowest, s.median, s.highest));
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[5.0]), Some((5.0, 5.0, 5.0)));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
        assert_eq!(summary(&[9.0, 1.0, 2.0, 4.0]), Some((1.0, 3.0, 9.0)));
    }

    #[test]
    fn ratios_are_of_rounds_that_belong_together() {
        let figure = |rounds: &[f64]| Figure {
            case: String::new(),
            subject: String::new(),
            unit: String::new(),
            rounds: rounds.to_vec(),
        };
        let ratio = figure(&[1.0, 20.0, 300.0]).ratio_to(&figure(&[2.0, 40.0, 600.0])).unwrap();
        assert_eq!((ratio.lowest, ratio.highest), (0.5, 0.5));
    }

    #[test]
    fn a_budget_has_a_direction() {
        let budget = |at_most, measured| Budget {
            what: "".into(),
            limit: 2.0,
            at_most,
            measured,
            unit: "".into(),
            why: "".into(),
        };
        let held = [(true, 2.0), (true, 2.1), (false, 1.9), (false, 2.0)];
        assert_eq!(
            held.map(|(at_most, measured)| budget(at_most, measured).holds()),
            [true, false, false, true]
        );
    }
}
