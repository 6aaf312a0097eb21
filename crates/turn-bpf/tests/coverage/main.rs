//! Whatever a stock coturn relays over UDP is relayed in the kernel, or left to the server for a reason that is told.

mod addressing;
mod calls;
mod differential;
mod families;
mod left_to_server;
mod merged;
mod nat;
mod opaque;
mod pairs;
mod routes;
mod secured;
mod virtual_ports;
mod wires;

use std::time::Duration;

use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::OffloadOptions;

const CHANNEL: u16 = 0x4001;

/// The families of the client's way to the server, and of the relayed transport address and the peer.
const FAMILY_PAIRS: [(Family, Family); 4] =
    [(Family::V4, Family::V4), (Family::V4, Family::V6), (Family::V6, Family::V4), (Family::V6, Family::V6)];

const TOPOLOGIES: [Topology; 2] = [Topology::One, Topology::Two];

/// A heartbeat in every talk, and a lease that outlasts what a busy machine does between two of them.
fn options() -> OffloadOptions {
    let terms = (Duration::from_millis(700), Duration::from_secs(3));
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf")).terms(terms.0, terms.1)
}
