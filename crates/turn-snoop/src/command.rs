use std::fmt;
use std::net::SocketAddr;

use crate::FiveTuple;

/// What the caller is to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// The server bound the channel, for the first time or again.
    Bind(ChannelBinding),
    /// The same where several allocations have the relayed transport address, one of which may be over without a word: the server has
    /// to be seen relaying the binding before anything is relayed for it.
    BindDoubtful(ChannelBinding),
    /// The allocation is older than the snoop and was found by its data: control messages of its 5-tuple are to be copied from now on.
    Follow(FiveTuple),
    /// The binding is over; there is exactly one for every binding that was announced.
    Unbind(ChannelBinding, Revocation),
    /// The allocation is over: control messages of its 5-tuple need no copying any longer.
    ///
    /// An allocation that is replaced by another one on the same 5-tuple is not forgotten.
    Forget(FiveTuple),
}

/// A channel and the peer that it is bound to (RFC 8656 section 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelBinding {
    /// The allocation's 5-tuple.
    pub five_tuple: FiveTuple,
    /// The channel number.
    pub channel: u16,
    /// The peer's transport address.
    pub peer: SocketAddr,
    /// The allocation's relayed transport address of the peer's family, as the server advertised it; none where the
    /// allocation is older than the snoop.
    ///
    /// Behind address translation it is not the address that the server really sends from.
    pub relayed: Option<SocketAddr>,
}

/// Why a binding is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Revocation {
    /// The server granted a Refresh with LIFETIME 0 (RFC 8656 section 8.2).
    RefreshedToZero,
    /// The server answered 437: it has no such allocation (RFC 8656 section 5).
    AllocationMismatch,
    /// The server made another allocation on the same 5-tuple, so the older one was gone (RFC 8656 section 7.2).
    ReplacedAllocation,
    /// The server gave the relayed transport address to another allocation, or bound the peer there for another client (RFC 8656
    /// section 6).
    RelayedAddressReused,
    /// The channel was bound to another peer, or the peer to another channel (RFC 8656 section 12).
    Rebound,
    /// The allocation's time-to-expiry ran out without a Refresh (RFC 8656 section 6).
    Expired,
    /// Another message speaks against the binding, so which is right is for the server to show.
    Contradicted,
    /// The server issued a MOBILITY-TICKET: the client may move (RFC 8016).
    Mobility,
    /// The peer's address has become one that is never offloaded.
    PeerNotAllowed,
}

impl Revocation {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::RefreshedToZero,
        Self::AllocationMismatch,
        Self::ReplacedAllocation,
        Self::RelayedAddressReused,
        Self::Rebound,
        Self::Expired,
        Self::Contradicted,
        Self::Mobility,
        Self::PeerNotAllowed,
    ];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefreshedToZero => "refreshed_to_zero",
            Self::AllocationMismatch => "allocation_mismatch",
            Self::ReplacedAllocation => "replaced_allocation",
            Self::RelayedAddressReused => "relayed_address_reused",
            Self::Rebound => "rebound",
            Self::Expired => "expired",
            Self::Contradicted => "contradicted",
            Self::Mobility => "mobility",
            Self::PeerNotAllowed => "peer_not_allowed",
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
