//! Ethernet II headers and IEEE 802.1Q tags.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Be16;

/// A 48-bit MAC address, as three words so that it is compared and copied in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MacAddress(pub [Be16; 3]);

/// The 14 bytes at the start of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EthernetHeader {
    /// The receiver on this link.
    pub destination: MacAddress,
    /// The sender on this link.
    pub source: MacAddress,
    /// What the frame carries, or the kind of tag that follows.
    pub ethertype: Be16,
}

impl EthernetHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
}

/// EtherType of IPv4.
pub const IPV4: Be16 = Be16::new(0x0800);
/// EtherType of IPv6.
pub const IPV6: Be16 = Be16::new(0x86dd);
/// Tag protocol of a customer VLAN (802.1Q).
pub const VLAN: Be16 = Be16::new(0x8100);
/// Tag protocol of a service VLAN (802.1ad).
pub const SERVICE_VLAN: Be16 = Be16::new(0x88a8);

const _: () = assert!(EthernetHeader::LEN == 14);
