//! `cargo xtask package`: the Debian package, and whether it installs, starts, works and goes without a trace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::cargo::cargo;
use crate::command::{self, output, root};
use crate::{interrupt, release, setup};

mod check;
mod debian;

const CARGO_DEB: &str = "3.8.0";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Install the package in a fresh Debian 12 that runs in a container, relay a call there, and remove it again. Some minutes.
    #[arg(long)]
    check: bool,
    /// Check the package of this turn-bpf, which is built already.
    #[arg(long, value_name = "FILE", hide = true)]
    binary: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    interrupt::catch()?;
    let binary = match &arguments.binary {
        Some(binary) => binary.clone(),
        None => {
            let binary = release::build("package")?;
            write_pages(&binary)?;
            install_cargo_deb()?;
            command::run(
                cargo_deb()?.args(["--no-build", "--package", "turn-bpf", "--output"]).arg(package_path()),
            )?;
            binary
        }
    };
    if arguments.check {
        if !command::is_root() {
            return release::run_again_as_root(&binary);
        }
        setup::packages::ensure(&debian::WANTED)?;
        check::check(&package_path())?;
        turn_testkit::lab::remove_leftovers();
    }
    println!("{}", package_path().display());
    Ok(ExitCode::SUCCESS)
}

fn package_path() -> PathBuf {
    root().join("target/debian/turn-bpf.deb")
}

/// Manual pages and completions, which the program has in it.
fn write_pages(binary: &Path) -> Result<()> {
    let folder = root().join("target/package");
    let (manual, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&manual, &completions] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    command::run(Command::new(binary).arg("man").arg(&manual))?;
    for (shell, name) in [("bash", "turn-bpf.bash"), ("zsh", "_turn-bpf"), ("fish", "turn-bpf.fish")] {
        let file = File::create(completions.join(name)).with_context(|| name.to_owned())?;
        let status = Command::new(binary).args(["completions", shell]).stdout(file).status();
        anyhow::ensure!(status?.success(), "turn-bpf completions {shell} fails");
    }
    Ok(())
}

fn cargo_deb() -> Result<Command> {
    let mut command = cargo();
    let tools = root().join(".tools/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(tools).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders)?).arg("deb");
    Ok(command)
}

fn install_cargo_deb() -> Result<()> {
    if output(cargo_deb()?.arg("--version")).is_ok_and(|version| version.trim().ends_with(CARGO_DEB)) {
        return Ok(());
    }
    eprintln!("package: cargo-deb {CARGO_DEB} into the project's folder .tools (some minutes)");
    let mut command = cargo();
    command.args(["install", "cargo-deb", "--version", CARGO_DEB, "--locked", "--force", "--root"]);
    command::run(command.arg(root().join(".tools")))
}
