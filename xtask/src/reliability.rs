//! `cargo xtask reliability`: what breaks, what was lost, and how long it took to heal.
//!
//! The table is `docs/reliability.toml`. It names tests, and here they are held against those that exist, run in full, and written down
//! in `docs/reliability.md` with the figures that they hand in (`turn_testkit::figures`).

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use turn_testkit::figures::{self, Figures};
use turn_testkit::scratch::ScratchFolder;

use self::table::Table;
use crate::cargo::{self, Executable};
use crate::command::root;
use crate::outcomes::{self, Outcome, Outcomes};
use crate::setup;

mod document;
mod table;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only the tests of faults with these ids, and keep what the document says of the others.
    ids: Vec<String>,
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
    let wanted = table.only(&arguments.ids)?;
    let folder = ScratchFolder::new("reliability").context("a folder for figures")?;
    let file = folder.path().join("figures");
    let environment = [(figures::FILE, file.as_os_str()), (figures::FULL, "1".as_ref())];
    let named = wanted.faults().flat_map(|fault| &fault.tests);
    let outcomes = Outcomes::of_running(named, &executables, &environment)?;
    turn_testkit::lab::remove_leftovers();
    let figures = read_figures(&fs::read_to_string(&file).context("the tests' figures")?)?;
    let before = fs::read_to_string(document_path()).unwrap_or_default();
    fs::write(document_path(), document::render(&table, &wanted, &outcomes, &figures, &before)?)?;
    let failed: Vec<_> = outcomes.all(Outcome::Failed).collect();
    if !failed.is_empty() {
        bail!("{} of the tests that are named fail:\n{}", failed.len(), failed.join("\n"));
    }
    let wrong = table.unmeasured(&wanted, &figures);
    if !wrong.is_empty() {
        bail!("docs/reliability.toml:\n{}", wrong.join("\n"));
    }
    println!("{} faults, {} tests: docs/reliability.md is written", wanted.faults().count(), outcomes.len());
    Ok(ExitCode::SUCCESS)
}

/// Whether the table's tests exist, and the document was made from it.
pub fn check(executables: &[Executable]) -> Result<()> {
    let table = read_table(executables)?;
    let written = fs::read_to_string(document_path()).unwrap_or_default();
    if !document::is_of(&written, &table) {
        bail!(
            "docs/reliability.md is not what docs/reliability.toml says by now: run `cargo xtask reliability`"
        );
    }
    println!("{} faults, and every test that they name exists", table.faults().count());
    Ok(())
}

/// The worst of each fault.
fn read_figures(lines: &str) -> Result<Vec<Figures>> {
    let mut all: Vec<Figures> = Vec::new();
    for line in lines.lines() {
        let one: Figures = serde_json::from_str(line).context("figures of a test")?;
        match all.iter_mut().find(|other| other.fault == one.fault) {
            Some(other) => *other = other.clone().worst(one),
            None => all.push(one),
        }
    }
    Ok(all)
}

fn read_table(executables: &[Executable]) -> Result<Table> {
    let path = root().join("docs/reliability.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let table = Table::parse(&text)?;
    let wrong = table.wrong(&outcomes::existing(executables)?);
    if !wrong.is_empty() {
        bail!("docs/reliability.toml:\n{}", wrong.join("\n"));
    }
    Ok(table)
}

fn document_path() -> PathBuf {
    root().join("docs/reliability.md")
}
