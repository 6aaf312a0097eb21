//! Two builds of turn-bpf, turn by turn, each by its own turn-bench, which has the BPF object in it.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use turn_testkit::measurement::{Figure, Part};

use super::PartName;
use super::document::number;
use crate::interrupt;

/// Prints what this build's figures are, the other one's, and the ratio, round by round.
pub fn compare(this: &Path, other: &Path, parts: &[PartName], rounds: usize) -> Result<()> {
    let parts = parts.iter().filter(|part| matches!(part, PartName::Program | PartName::Growth));
    for part in parts {
        let mut figures: [Vec<Figure>; 2] = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            eprintln!("bench: {}, round {} of {rounds}", part.name(), round + 1);
            for (turn_bench, figures) in [this, other].into_iter().zip(&mut figures) {
                interrupt::check()?;
                for figure in measure(turn_bench, *part)?.figures {
                    let same =
                        |known: &&mut Figure| known.case == figure.case && known.subject == figure.subject;
                    match figures.iter_mut().find(same) {
                        Some(known) => known.rounds.extend(figure.rounds),
                        None => figures.push(figure),
                    }
                }
            }
        }
        println!(
            "{}: case, what, this, other, unit, ratio of this to the other: median (lowest to highest)",
            part.name()
        );
        let [these, others] = &figures;
        for figure in these {
            let same = |other: &&Figure| other.case == figure.case && other.subject == figure.subject;
            let Some(other) = others.iter().find(same) else { continue };
            if let (Some(own), Some(its), Some(ratio)) =
                (figure.summary(), other.summary(), figure.ratio_to(other))
            {
                println!(
                    "{}, {}: {} {} {}, {} ({} to {})",
                    figure.case,
                    figure.subject,
                    number(own.median),
                    number(its.median),
                    figure.unit,
                    number(ratio.median),
                    number(ratio.lowest),
                    number(ratio.highest)
                );
            }
        }
    }
    Ok(())
}

fn measure(turn_bench: &Path, part: PartName) -> Result<Part> {
    let mut command = Command::new(turn_bench);
    command.args(["--rounds", "1", &part.name()]).stderr(Stdio::null());
    let output = command.output().with_context(|| format!("cannot run {}", turn_bench.display()))?;
    if !output.status.success() {
        bail!("{} {}: {}", turn_bench.display(), part.name(), output.status);
    }
    serde_json::from_slice(&output.stdout).context("turn-bench printed something strange")
}
