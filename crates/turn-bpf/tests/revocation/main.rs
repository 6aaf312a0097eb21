//! What the server no longer relays, the kernel does not relay either; and whatever happens to turn-bpf, calls go on.

mod daemon;
mod lifetimes;
mod server;
mod sockets;

use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
