//! Builds a BPF object from source, with the toolchain that builds the crate that embeds it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINKER: &str = ".tools/bin/bpf-linker";

/// Builds this package for the BPF target and returns the object.
pub fn build(package: &str) -> PathBuf {
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("project root");
    let target = root.join("target/bpf");
    let own = format!("crates/{package}");
    for watched in [&own, "crates/turn-datapath", "crates/turn-wire", "Cargo.lock", LINKER] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    for watched in ["TURN_BPF_CARGO", "TURN_BPF_RUSTC", "TURN_BPF_LINKER"] {
        println!("cargo::rerun-if-env-changed={watched}");
    }

    let linker = env::var_os("TURN_BPF_LINKER").map_or_else(|| root.join(LINKER), PathBuf::from);
    assert!(
        linker.exists(),
        "bpf-linker is missing ({}): run `cargo xtask setup` once, or name one with TURN_BPF_LINKER",
        linker.display()
    );
    let architecture = variable("CARGO_CFG_TARGET_ARCH");
    let bpf_target = match variable("CARGO_CFG_TARGET_ENDIAN").as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise every buffer is zeroed byte by byte, by a call of a function that needs stack of its own.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    let mut cargo = Command::new(env::var_os("TURN_BPF_CARGO").unwrap_or_else(|| variable("CARGO").into()));
    for (name, _) in env::vars_os() {
        // This script runs with the variables of a build for the host, which would leak into the inner one.
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_") && name != "CARGO_HOME") {
            cargo.env_remove(name);
        }
    }
    cargo
        .current_dir(&root)
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTFLAGS")
        // `build-std` is not stable, and a nightly toolchain would be one more to install.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", env::var_os("TURN_BPF_RUSTC").unwrap_or_else(|| variable("RUSTC").into()))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args(["build", "--package", package, "--profile", "bpf", "--target", bpf_target])
        .args(["-Z", "build-std=core", "--locked", "--target-dir"])
        .arg(&target);
    let status = cargo.status().unwrap_or_else(|error| panic!("cannot run {cargo:?}: {error}"));
    assert!(status.success(), "building the BPF object failed: {status}");

    target.join(bpf_target).join("bpf").join(package)
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
