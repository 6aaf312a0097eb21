//! What operators see of turn-bpf, count by it, and tell it to do.

mod doctor;
mod events;
mod metrics;
mod pausing;
mod rates;
mod session_log;
mod sessions;
mod top;

use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
