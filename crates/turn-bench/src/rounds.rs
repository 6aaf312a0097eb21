//! Rounds: everything that is compared is measured in turn, again and again, so that whatever else the machine does meets all alike.

use anyhow::Result;
use turn_testkit::measurement::Figure;

/// Runs one round more than `count` of `measure`, which reports each figure, and drops the first.
///
/// `measure` reports the same figures in the same order in each round.
pub fn run(
    count: usize,
    mut measure: impl FnMut(&mut dyn FnMut(&str, &str, &str, f64)) -> Result<()>,
) -> Result<Vec<Figure>> {
    let mut figures: Vec<Figure> = Vec::new();
    for round in 0..=count {
        eprintln!("bench: round {round} of {count}");
        measure(&mut |case, subject, unit, value| {
            let known = figures.iter().position(|figure| figure.case == case && figure.subject == subject);
            let at = known.unwrap_or_else(|| {
                let (case, subject, unit) = (case.to_owned(), subject.to_owned(), unit.to_owned());
                figures.push(Figure { case, subject, unit, rounds: Vec::new() });
                figures.len() - 1
            });
            if round > 0
                && let Some(figure) = figures.get_mut(at)
            {
                figure.rounds.push(value);
            }
        })?;
    }
    Ok(figures)
}
