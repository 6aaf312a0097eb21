//! What the targets did, as a table and as JSON.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use super::target::Outcome;

/// All targets.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: u32,
    targets: Vec<Outcome>,
}

impl Report {
    /// Of these.
    pub fn new(targets: Vec<Outcome>) -> Self {
        Self { schema: 1, targets }
    }

    /// Whether any found something.
    pub fn has_findings(&self) -> bool {
        self.targets.iter().any(|target| target.complaint.is_some())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let right = |value: String| Cell::new(value).set_alignment(CellAlignment::Right);
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["target", "seconds", "runs", "runs per second", "edges", "inputs", "result"]);
        for target in &self.targets {
            let Outcome { name, seconds, runs, coverage, inputs, complaint, .. } = target;
            table.add_row([
                Cell::new(name),
                right(format!("{seconds:.0}")),
                right(runs.to_string()),
                right(format!("{:.0}", *runs as f64 / seconds)),
                right(coverage.to_string()),
                right(inputs.to_string()),
                Cell::new(if complaint.is_some() { "found something" } else { "nothing found" }),
            ]);
        }
        write!(f, "{table}")?;
        for target in &self.targets {
            let Some(complaint) = &target.complaint else { continue };
            write!(f, "\n\n{}: {complaint}", target.name)?;
            if let Some(found) = &target.found {
                write!(f, "\nagain: cargo xtask fuzz {} --input {}", target.name, found.display())?;
            }
        }
        Ok(())
    }
}
