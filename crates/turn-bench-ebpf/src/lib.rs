//! What the benchmark tells its BPF programs.
#![no_std]

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Words of [`Template::head`]: Ethernet, IPv6, UDP and ChannelData header, and two bytes more.
pub const HEAD_WORDS: usize = 17;

/// Sources with one address. The next source has the next address and starts at the first port again.
pub const PORTS: u32 = 1 << 14;

/// At how many UDP ports in a row packets are counted.
pub const COUNTED_PORTS: u16 = 16;

/// Keys that the program that looks one up has room for: twice as many flows as a daemon has room for by default.
pub const MOST_KEYS: u32 = 1 << 17;

/// The frame that is written before each run of a program that is measured.
///
/// Every packet goes through the same frame, which such a program changes, so everything that it may have changed is written anew:
/// the length, and the headers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Template {
    /// The first bytes of the frame of source 0, in memory order.
    pub head: [u32; HEAD_WORDS],
    /// Length of the frame in bytes.
    pub length: u32,
    /// How many sources there are, of which each packet comes from a random one; 0 and 1 are one.
    pub sources: u32,
    /// 4 or 6 where the frame is a UDP datagram over IP without VLAN tags, else 0, and there is one source.
    pub version: u32,
}
