//! The source of `core`, from which it is built for BPF: the toolchain's own, or else another toolchain with source.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::packages;
use crate::command::{output, root, run};

/// Variables for the build script of turn-bpf that name the toolchain for BPF; the file is there only if it is not the pinned one.
const VARIABLES: &str = ".tools/toolchain.env";
const DEBIAN_PACKAGES: [&str; 4] = ["rustc-web", "cargo-web", "rust-web-src", "llvm-22-dev"];
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The folder of the pinned toolchain.
pub fn sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(root()).env_remove("RUSTUP_TOOLCHAIN").args(["--print", "sysroot"]);
    Ok(output(&mut rustc)?.trim().into())
}

/// Whether Debian's toolchain stands in for the pinned one.
pub fn is_debian() -> bool {
    root().join(VARIABLES).exists()
}

/// What the build script of turn-bpf has to be told.
pub fn variables() -> Vec<(String, String)> {
    let file = fs::read_to_string(root().join(VARIABLES)).unwrap_or_default();
    file.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Whether there is a toolchain with the source of `core`.
pub fn has_source() -> bool {
    is_debian() || sysroot().is_ok_and(|sysroot| has_core(&sysroot))
}

/// Adds the source to the pinned toolchain, or installs Debian's toolchain.
pub fn install_source() -> Result<()> {
    let sysroot = sysroot()?;
    let toolchain = sysroot.file_name().context("the sysroot has no name")?;
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src", "--toolchain"]).arg(toolchain);
    match run(&mut rustup) {
        Ok(()) if has_core(&sysroot) => return Ok(()),
        Ok(()) => eprintln!("setup: rustup added rust-src, but it is not in {}", sysroot.display()),
        Err(error) => eprintln!("setup: {error:#}"),
    }
    eprintln!("setup: Debian packages instead: {}", DEBIAN_PACKAGES.join(" "));
    packages::install(&DEBIAN_PACKAGES)?;
    let debian = output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))?;
    if !has_core(Path::new(debian.trim())) {
        bail!("rust-web-src has not brought the source of core to {}", debian.trim());
    }
    let file = root().join(VARIABLES);
    fs::create_dir_all(root().join(".tools"))?;
    fs::write(&file, format!("TURN_BPF_CARGO={DEBIAN_CARGO}\nTURN_BPF_RUSTC={DEBIAN_RUSTC}\n"))?;
    eprintln!("setup: for `cargo build` outside of `cargo xtask`, export what is in {}", file.display());
    Ok(())
}

fn has_core(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}
