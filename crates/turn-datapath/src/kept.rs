//! What the daemon knows and no other map says, as it is kept in maps from one daemon to the next. The programs read none of it.

use turn_wire::{Be16, IpAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A transport address; with port zero, none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddress,
    /// The port.
    pub port: Be16,
    /// Zero.
    pub reserved: Be16,
}

/// An allocation, under the key of its 5-tuple from client to server, without a channel. Times are the kernel's, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptAllocation {
    /// When it was learned.
    pub made: u64,
    /// Before this time nothing is learned from its requests.
    pub learns_nothing_until: u64,
    /// When its relayed transport addresses expire, IPv4 and IPv6.
    pub deadlines: [u64; 2],
    /// Its relayed transport addresses as the server advertised them, IPv4 and IPv6, where they are known.
    pub relayed: [Endpoint; 2],
    /// Of the Allocate that made it.
    pub transaction: [u8; 12],
    /// [`allocation_flags`].
    pub flags: u32,
}

/// Bits of [`KeptAllocation::flags`].
pub mod allocation_flags {
    /// It has a relayed transport address of IPv4, known or not.
    pub const V4: u32 = 1;
    /// The same of IPv6.
    pub const V6: u32 = 2;
    /// The server has issued a mobility ticket for it.
    pub const MOBILE: u32 = 4;
    /// Its Allocate was seen.
    pub const TRANSACTION: u32 = 8;
}

/// A channel binding, under the key of the packets that come from its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptBinding {
    /// When it was bound, by the kernel's clock, in nanoseconds.
    pub bound_at: u64,
    /// The same by the calendar, in nanoseconds since 1970.
    pub bound_on: u64,
    /// What flows carried that are gone, to the peer and to the client.
    pub carried: [KeptTraffic; 2],
    /// The peer.
    pub peer: Endpoint,
    /// The relayed transport address as the server advertised it.
    pub advertised: Endpoint,
    /// The relayed transport address on the wire, as far as it is known.
    pub relayed: Endpoint,
    /// Of the ChannelBind that the server granted last.
    pub transaction: [u8; 12],
    /// [`binding_flags`].
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

/// Bits of [`KeptBinding::flags`].
pub mod binding_flags {
    /// The server is known to have it.
    pub const BOUND: u32 = 1;
    /// It has flows.
    pub const HAS_FLOWS: u32 = 2;
    /// Its ChannelBind was seen.
    pub const TRANSACTION: u32 = 4;
}

/// Packets, and bytes of application data in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptTraffic {
    /// Relayed in the kernel.
    pub kernel_packets: u64,
    /// Bytes in them.
    pub kernel_bytes: u64,
    /// Left to the server.
    pub spilled_packets: u64,
    /// Bytes in them.
    pub spilled_bytes: u64,
}

/// Whose an allocation is, under the same key as the allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptUser {
    /// Bytes of the name, which come first.
    pub name_length: u16,
    /// Bytes of the realm and one more, or zero where there is none.
    pub realm_length: u16,
    /// Both, in UTF-8.
    pub text: [u8; KeptUser::ROOM],
}

impl KeptUser {
    /// For the longest name and the longest realm that there are (RFC 8489 sections 14.3 and 14.9).
    pub const ROOM: usize = 1276;
}

/// Which packets a total is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KeptCourse {
    /// The interface that they came by.
    pub ifindex: u32,
    /// From whom to whom they went.
    pub course: u32,
}

const _: () = assert!(size_of::<KeptAllocation>() == 88 && size_of::<KeptBinding>() == 160);
