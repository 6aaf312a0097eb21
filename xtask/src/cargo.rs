//! Cargo, run anew from inside `cargo xtask`.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::command::{self, root};
use crate::setup::toolchain;

/// A program that Cargo has built.
#[derive(Clone, Debug)]
pub struct Executable {
    /// The target's name.
    pub name: String,
    /// The folder of its package.
    pub package: PathBuf,
    /// The program.
    pub path: PathBuf,
    /// Whether it is one of tests. Those that the tests themselves start are not.
    pub is_test: bool,
}

/// Cargo in the project's root, with the pinned toolchain and without the variables that the Cargo around this process has set.
pub fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_outer_cargo) {
            command.env_remove(name);
        }
    }
    command.envs(toolchain::variables());
    command
}

fn is_of_outer_cargo(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    let names =
        ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "RUSTUP_TOOLCHAIN", "RUST_RECURSION_COUNT"];
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Builds with these arguments and returns the programs.
pub fn build(arguments: &[&str]) -> Result<Vec<Executable>> {
    let mut command = cargo();
    command.args(arguments);
    executables(command)
}

/// Runs a build and returns the programs.
pub fn executables(mut command: Command) -> Result<Vec<Executable>> {
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo's standard output")?;
    let mut executables = Vec::new();
    for line in BufReader::new(stdout).lines() {
        if let Ok(Message { executable: Some(path), manifest_path, target, profile }) =
            serde_json::from_str(&line?)
        {
            let package = manifest_path.parent().map(PathBuf::from).unwrap_or_default();
            executables.push(Executable { name: target.name, package, path, is_test: profile.test });
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("{}: {status}", command::line(&command));
    }
    Ok(executables)
}

/// Builds all tests and returns their programs.
pub fn build_tests() -> Result<Vec<Executable>> {
    let mut executables = build(&["test", "--no-run"])?;
    executables.retain(|executable| executable.is_test);
    Ok(executables)
}

/// A line of Cargo's JSON messages, of which only artifacts matter here.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    manifest_path: PathBuf,
    target: Target,
    profile: Profile,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}
