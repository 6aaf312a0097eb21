//! bpf-linker, linked with the LLVM that the toolchain brings along: no other LLVM is needed.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::toolchain;
use crate::cargo::cargo;
use crate::command::{output, root, run};

/// Built for LLVM 22, as are Rust 1.95 and 1.96.
pub const VERSION: &str = "0.13.0";

/// Whether this version is there and runs: it stops when the toolchain whose LLVM it uses is removed.
pub fn is_installed() -> bool {
    output(Command::new(root().join(".tools/bin/bpf-linker")).arg("--version"))
        .is_ok_and(|version| version.trim().ends_with(VERSION))
}

/// Builds it from crates.io.
pub fn install() -> Result<()> {
    let tools = root().join(".tools");
    let mut command = cargo();
    if toolchain::is_debian() {
        command.env("LLVM_PREFIX", "/usr/lib/llvm-22");
    } else {
        let libraries = toolchain::sysroot()?.join("lib");
        let llvm = tools.join("llvm");
        link_llvm(&libraries, &llvm)?;
        command.env("LLVM_PREFIX", &llvm);
        command.env("RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{}", libraries.display()));
    }
    command
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&tools);
    run(&mut command)
}

/// Makes `llvm/lib/libLLVM.so`, the name that the linker looks for, point to the toolchain's library.
fn link_llvm(libraries: &Path, llvm: &Path) -> Result<()> {
    let found = fs::read_dir(libraries)
        .with_context(|| format!("cannot read {}", libraries.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| file_name(path).starts_with("libLLVM.so.22"))
        .with_context(|| format!("no libLLVM.so.22 in {}", libraries.display()))?;
    let folder = llvm.join("lib");
    fs::create_dir_all(&folder)?;
    let link = folder.join("libLLVM.so");
    match fs::remove_file(&link) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).context("cannot replace libLLVM.so");
        }
        _ => {}
    }
    symlink(&found, &link).with_context(|| format!("cannot make {}", link.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
