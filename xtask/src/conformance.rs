//! `cargo xtask conformance`: which test shows which requirement of RFC 8656, and which attack.
//!
//! The table is `docs/conformance.toml`. It names tests, and here the tests that exist are held against it, run, and written down
//! with their results in `docs/conformance.md`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

use self::table::Table;
use crate::cargo::{self, Executable};
use crate::command::root;
use crate::outcomes::{self, Outcome, Outcomes};
use crate::setup;

mod document;
mod table;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run no test: only hold table, tests and document against each other.
    #[arg(long)]
    check: bool,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let executables = cargo::build_tests()?;
    if arguments.check {
        check(&executables)?;
        return Ok(ExitCode::SUCCESS);
    }
    let table = read_table(&executables)?;
    let named = table.rows().flat_map(|row| &row.tests);
    let outcomes = Outcomes::of_running(named, &executables, &[])?;
    turn_testkit::lab::remove_leftovers();
    fs::write(document_path(), document::render(&table, &outcomes)?)?;
    let failed: Vec<_> = outcomes.all(Outcome::Failed).collect();
    if !failed.is_empty() {
        bail!("{} of the tests that are named fail:\n{}", failed.len(), failed.join("\n"));
    }
    println!("{} rows, {} tests: docs/conformance.md is written", table.rows().count(), outcomes.len());
    Ok(ExitCode::SUCCESS)
}

/// Whether the table is complete, its tests exist, and the document was made from it.
pub fn check(executables: &[Executable]) -> Result<()> {
    let table = read_table(executables)?;
    let written = fs::read_to_string(document_path()).unwrap_or_default();
    if !document::is_of(&written, &table) {
        bail!(
            "docs/conformance.md is not what docs/conformance.toml says by now: run `cargo xtask conformance`"
        );
    }
    println!("{} rows, and every test that they name exists", table.rows().count());
    Ok(())
}

fn read_table(executables: &[Executable]) -> Result<Table> {
    let path = root().join("docs/conformance.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let table = Table::parse(&text)?;
    let faults = table.faults(&outcomes::existing(executables)?);
    if !faults.is_empty() {
        bail!("docs/conformance.toml:\n{}", faults.join("\n"));
    }
    Ok(table)
}

fn document_path() -> PathBuf {
    root().join("docs/conformance.md")
}
