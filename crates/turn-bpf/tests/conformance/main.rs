//! Requirements of RFC 8656 that only show in the presence of a server. The names are those of `docs/conformance.md`.

mod families;
mod handshakes;
mod mid_call;
mod path_mtu;

use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
