//! Whatever breaks, calls go on by the server at the worst, and the kernel takes them up again by itself. Each test hands in what was lost
//! and how long it took, and `cargo xtask reliability` writes that down. Faults that other suites test hand in their figures there.

mod addresses;
mod beside;
mod call;
mod clock;
mod cycles;
mod filters;
mod interfaces;
mod maps;
mod processes;
mod ring_buffer;
mod transmission;

use turn_testkit::figures;
use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

/// In which a fault is tried. `cargo xtask reliability` wants more than one.
fn modes() -> impl Iterator<Item = &'static str> {
    ["native", "generic"].into_iter().take(figures::times(1, 2) as usize)
}

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
