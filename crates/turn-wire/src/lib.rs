//! What the bytes mean: Ethernet, IPv4, IPv6, UDP, ChannelData, STUN, and the Internet checksum.
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::panic)]

pub mod stun;
