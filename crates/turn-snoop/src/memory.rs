use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::{FiveTuple, User};

/// All that is known of an allocation, for a later [`Snoop`](crate::Snoop) to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationMemory {
    /// Its name.
    pub five_tuple: FiveTuple,
    /// When it was learned.
    pub made: Duration,
    /// Its relayed transport addresses, IPv4 and IPv6.
    pub relayed: [Option<RelayedMemory>; 2],
    /// Whether the server has issued a MOBILITY-TICKET for it.
    pub is_mobile: bool,
    /// Of the Allocate that made it, where that was seen.
    pub transaction_id: Option<[u8; 12]>,
    /// Before this time nothing is learned from its requests.
    pub learns_nothing_until: Duration,
    /// Whose it is, as far as a request has said it.
    pub user: Option<Arc<User>>,
    /// Its channel bindings.
    pub bindings: Vec<BindingMemory>,
}

/// A relayed transport address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayedMemory {
    /// As the server advertised it; none where the Allocate was not seen.
    pub address: Option<SocketAddr>,
    /// When it expires.
    pub deadline: Duration,
}

/// A channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindingMemory {
    /// The channel number.
    pub channel: u16,
    /// The peer's transport address.
    pub peer: SocketAddr,
    /// The relayed transport address as it was announced with the binding.
    pub relayed: Option<SocketAddr>,
    /// Of the latest ChannelBind that the server granted, where one was seen.
    pub transaction_id: Option<[u8; 12]>,
}
