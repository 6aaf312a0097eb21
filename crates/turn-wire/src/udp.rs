//! The UDP header (RFC 768).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Be16;

/// The 8 bytes before every datagram's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UdpHeader {
    /// Port of the sender.
    pub source: Be16,
    /// Port of the receiver.
    pub destination: Be16,
    /// Bytes of header and data.
    pub length: Be16,
    /// Over pseudo-header, header and data; zero where the sender computed none.
    pub checksum: Be16,
}

impl UdpHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
}

const _: () = assert!(UdpHeader::LEN == 8);
