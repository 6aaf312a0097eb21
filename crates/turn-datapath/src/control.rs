//! What the kernel tells the daemon, through the ring buffer.

use turn_wire::{Be16, IpAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::FlowKey;

/// Most bytes of a control message that are copied. Handshakes with long names and nonces stay below it
/// (USERNAME 513 bytes, REALM and NONCE 763 bytes each at the most, RFC 8489 section 14, but never all of them).
pub const MAX_MESSAGE: usize = 1280;

/// Start of every record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RecordHeader {
    /// One of [`kind`].
    pub kind: u32,
    /// Bytes of the message, where one follows.
    pub length: u32,
    /// When, in nanoseconds of the clock that leases use.
    pub time: u64,
    /// Of a message: its addresses. Of a flow event: the key of the flow.
    pub key: FlowKey,
}

/// Values of [`RecordHeader::kind`].
pub mod kind {
    /// A STUN request that came in from a known client.
    pub const REQUEST: u32 = 1;
    /// A STUN response that this host sent.
    pub const RESPONSE: u32 = 2;
    /// A flow got a lease.
    pub const ARMED: u32 = 3;
    /// A flow's lease ran out.
    pub const LAPSED: u32 = 4;
    /// A flow's lease was ended because the server's packets take another way.
    pub const PATH_CHANGED: u32 = 5;
    /// A driver refused frames that were redirected to its interface; the length is the interface's ifindex; there is no time.
    pub const TRANSMIT_FAILED: u32 = 6;
    /// A flow has packets that are longer than what the server was seen to send: the daemon is to say what its path takes.
    pub const LONGER: u32 = 7;
    /// This host sent a datagram that no flow expects: a [`Sighting`](crate::joining::Sighting).
    pub const SIGHTED: u32 = 8;
}

/// A flow got or lost its lease, or has longer packets than before.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowEvent {
    /// Kind, time and key.
    pub header: RecordHeader,
    /// The source address that the server's own packets bear: what the receiver answers to.
    pub out_source: IpAddress,
    /// The source port that they bear.
    pub out_source_port: Be16,
    /// Zero.
    pub reserved: [u16; 3],
}

/// Where in a frame the control message lies that the daemon wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlMessage {
    /// Offset of its first byte.
    pub at: usize,
    /// Its length in bytes, at most [`MAX_MESSAGE`].
    pub length: usize,
    /// [`kind::REQUEST`] or [`kind::RESPONSE`].
    pub kind: u32,
}
