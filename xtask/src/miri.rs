//! `cargo xtask miri`: the tests of the crates that the kernel side is made of, and of the snoop, run by Miri.
//!
//! Miri comes with nightly toolchains, seldom with stable ones such as the pinned one. None of these crates has unsafe code of
//! its own, so what it could find is in what they depend on.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::cargo::cargo;
use crate::command;

const PACKAGES: [&str; 3] = ["turn-wire", "turn-datapath", "turn-snoop"];

/// Tests that try every bit or every number: Miri is a thousand times slower than the processor.
const TOO_LONG: [&str; 3] = [
    "fr12_every_flipped_bit_is_found_by_the_fingerprint",
    "fr4_fr5_only_the_types_of_turn_change_anything",
    "a_sum_of_words_is_the_reference",
];

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Run only tests whose names contain this.
    filter: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let Some(mut tests) = of_pinned_toolchain().or_else(|| tests_by(&["+nightly"])) else {
        bail!(
            "no toolchain here has Miri; `rustup component add miri rust-src --toolchain nightly` brings it"
        );
    };
    command::run(tests.args(&arguments.filter))?;
    Ok(ExitCode::SUCCESS)
}

/// The tests, where the pinned toolchain has Miri.
pub fn of_pinned_toolchain() -> Option<Command> {
    tests_by(&[])
}

fn tests_by(toolchain: &[&str]) -> Option<Command> {
    let miri = || {
        let mut command = cargo();
        command.args(toolchain).arg("miri");
        command
    };
    command::output(miri().arg("--version")).ok()?;
    let mut tests = miri();
    tests
        .arg("test")
        .args(PACKAGES.iter().flat_map(|package| ["--package", package]))
        .args(["--tests", "--"]);
    tests.args(TOO_LONG.iter().flat_map(|test| ["--skip", test]));
    // proptest asks for the name of its folder.
    tests.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", "4");
    Some(tests)
}
