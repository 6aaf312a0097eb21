//! `cargo xtask setup`: looks at what is missing, says it, then installs it.

use std::process::ExitCode;

use anyhow::Result;

mod linker;
pub mod packages;
mod prometheus;
pub mod toolchain;

/// One thing that is not there yet.
enum Missing {
    Packages(Vec<&'static str>),
    Source,
    Linker,
    Prometheus,
}

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only what `cargo build` and `cargo install` need: the toolchain's source and bpf-linker.
    #[arg(long)]
    to_build: bool,
}

/// `cargo xtask setup`.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let is_for_build = |thing: &Missing| matches!(thing, Missing::Source | Missing::Linker);
    let missing = missing().into_iter().filter(|thing| !arguments.to_build || is_for_build(thing));
    if install(missing.collect())? {
        eprintln!("setup: done");
    } else {
        eprintln!("setup: everything is there");
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs what is missing; whether anything was.
pub fn ensure() -> Result<bool> {
    install(missing())
}

fn install(missing: Vec<Missing>) -> Result<bool> {
    if missing.is_empty() {
        return Ok(false);
    }
    eprintln!("setup will install:");
    for thing in &missing {
        eprintln!("  - {}", thing.announcement());
    }
    for thing in missing {
        eprintln!("setup: {}", thing.announcement());
        match thing {
            Missing::Packages(packages) => packages::install(&packages)?,
            Missing::Source => toolchain::install_source()?,
            Missing::Linker => linker::install()?,
            Missing::Prometheus => prometheus::install()?,
        }
    }
    Ok(true)
}

fn missing() -> Vec<Missing> {
    let mut missing = Vec::new();
    let packages = packages::missing(&packages::WANTED);
    if !packages.is_empty() {
        missing.push(Missing::Packages(packages));
    }
    if !toolchain::has_source() {
        missing.push(Missing::Source);
    }
    if !linker::is_installed() {
        missing.push(Missing::Linker);
    }
    if !prometheus::is_installed() {
        missing.push(Missing::Prometheus);
    }
    missing
}

impl Missing {
    fn announcement(&self) -> String {
        match self {
            Self::Packages(packages) => format!("Debian packages: {}", packages.join(" ")),
            Self::Source => "the toolchain's rust-src component, from which `core` is built for BPF \
                             (or Debian's rustc-web and rust-web-src, if rustup cannot add it)"
                .into(),
            Self::Prometheus => {
                "Debian's prometheus, unpacked into the project's folder .tools (20 MB to download)".into()
            }
            Self::Linker => {
                format!("bpf-linker {} into the project's folder .tools (some minutes)", linker::VERSION)
            }
        }
    }
}
