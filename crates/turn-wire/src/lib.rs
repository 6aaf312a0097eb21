//! What the bytes mean: Ethernet, IPv4, IPv6, UDP, ChannelData, STUN, and the Internet checksum.
//!
//! The header types are plain data in network byte order, naturally aligned, and are copied out of a packet
//! and back into it. The same source runs in the kernel and on the host, so nothing here can panic.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

pub mod big_endian;
pub mod channel_data;
pub mod checksum;
pub mod ethernet;
pub mod ip;
pub mod stun;
pub mod udp;

pub use big_endian::{Be16, Be32};
pub use ip::IpAddress;
