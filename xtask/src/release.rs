//! turn-bpf as it is released, for the tasks that show or measure it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::command::as_root;
use crate::{cargo, setup};

/// Sets up and builds turn-bpf for a task; returns where it is.
pub fn build(task: &str) -> Result<PathBuf> {
    setup::ensure()?;
    eprintln!("{task}: cargo build --release");
    let executables = cargo::build(&["build", "--release", "--package", "turn-bpf"])?;
    let binary = executables.into_iter().find(|executable| executable.name == "turn-bpf");
    Ok(binary.context("the build has brought no turn-bpf")?.path)
}

/// Runs the same task again as root, with what was built: only what comes after the build needs root, and nothing that was built
/// should belong to it. The task has to know `--binary`.
pub fn run_again_as_root(binary: &Path) -> Result<ExitCode> {
    let mut command = as_root(std::env::current_exe()?)?;
    command.args(std::env::args_os().skip(1)).arg("--binary").arg(binary);
    let status = command.status().context("cannot run sudo")?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
