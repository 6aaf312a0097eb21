//! A stock coturn, offloaded: nothing lost, nothing changed, and hardly anything left for the server to do.

mod contract;
mod eager;
mod headers;
mod heartbeats;
mod joining;
mod jumbo;
mod many;
mod order;
mod round_trips;
mod sizes;

use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
