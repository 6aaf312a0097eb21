//! Somebody tries to have the kernel relay what the server would not. The names are those of the attacks in the project's catalogue.

mod flood;
mod forger;
mod hidden;
mod insider;
mod joining;
mod load;
mod local;
mod requests;
mod responses;
mod running;
mod server_death;
mod strangers;
mod targets;
mod unheard;

use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
