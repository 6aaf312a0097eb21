//! Calls by VLANs through a stock coturn. turn-bpf is at the devices below the VLAN interfaces, whose frames bear the tags.
//!
//! They need a kernel with 802.1Q. Where it has none they would fail, so they are left out unless they are asked for
//! (`--include-ignored`), as `cargo xtask vm` does in kernels of Debian's.

mod call;
mod generic;
mod on_top;
mod relayed;
mod sizes;

use turn_testkit::lab::Family;
use turn_testkit::offload::OffloadOptions;
use turn_testkit::packet::{TPID_8021AD, TPID_8021Q, Tag};

const CHANNEL: u16 = 0x4001;

/// The families of the client's way to the server, and of the relayed transport address and the peer.
const FAMILY_PAIRS: [(Family, Family); 4] =
    [(Family::V4, Family::V4), (Family::V4, Family::V6), (Family::V6, Family::V4), (Family::V6, Family::V6)];

/// A customer's VLAN, its frames sent with priority 5.
const CUSTOMER: Tag = Tag { tpid: TPID_8021Q, tci: 0xa00a };
/// Another one, with priority 3.
const OTHER: Tag = Tag { tpid: TPID_8021Q, tci: 0x6014 };
/// A service VLAN, which others lie in, without a priority.
const SERVICE: Tag = Tag { tpid: TPID_8021AD, tci: 0x0064 };
/// Another one, with priority 7.
const OTHER_SERVICE: Tag = Tag { tpid: TPID_8021AD, tci: 0xe0c8 };

fn options() -> OffloadOptions {
    OffloadOptions::new(env!("CARGO_BIN_EXE_turn-bpf"))
}
