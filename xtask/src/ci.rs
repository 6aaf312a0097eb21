//! `cargo xtask ci`: what the CI runs.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::command::{self, root};

pub fn run() -> Result<ExitCode> {
    command::run(Command::new(root().join(".ci/run")).current_dir(root()))?;
    Ok(ExitCode::SUCCESS)
}
