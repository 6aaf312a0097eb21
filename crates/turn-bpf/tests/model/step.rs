//! What can happen next in the model.

use proptest::prelude::*;

/// A choice among as many as there are when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Pick(pub u8);

impl Pick {
    /// Among so many.
    pub fn of(self, number: usize) -> usize {
        usize::from(self.0) % number
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Ask {
    Allocate { v6: bool },
    Refresh,
    Delete,
    Permission { peer: Pick },
    ChannelBind { channel: Pick, peer: Pick },
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A client's request is on its way; a forged one bears the client's address and somebody else's name.
    Ask { client: Pick, ask: Ask, is_forged: bool },
    /// A client sends its last request again.
    AskAgain { client: Pick },
    /// A channel that is bound is used, by the client or by the peer.
    Talk { which: Pick, length: Pick },
    /// A client sends ChannelData, whether the channel is bound or not.
    ClientSends { client: Pick, channel: Pick, length: Pick },
    /// A client sends a Send indication.
    Indication { client: Pick, peer: Pick },
    /// A peer sends to a relayed transport address.
    PeerSends { peer: Pick, relayed: Pick, length: Pick },
    /// A packet reaches the host, mostly the oldest in flight.
    Arrive { which: Pick },
    /// A packet is lost in the network.
    Lose { which: Pick },
    /// The network makes two of one.
    Copy { which: Pick },
    /// The server handles some datagrams.
    ServerWorks { datagrams: Pick },
    /// The server's socket has no room for the newest datagram.
    ServerDrops,
    /// The daemon handles some records.
    DaemonWorks { records: Pick },
    /// All that is in flight arrives in order, and everybody catches up.
    Settle,
    /// Time passes.
    Milliseconds { time: Pick },
    /// Time passes, and the daemon's timers with it.
    Seconds { time: Pick },
    /// Permissions, channels and allocations expire.
    Minutes { time: Pick },
    /// The server is killed and started again.
    ServerRestarts,
    /// The server forgets a client, by an administrator's hand.
    Kick { client: Pick },
    /// The daemon gets the kernel's reports of closed sockets.
    DaemonHearsOfSockets,
    /// The daemon is killed and started again.
    DaemonRestarts,
    /// The daemon ends, and another one goes on with what it knew (`--keep`).
    DaemonIsReplaced,
    /// The way to the peers changes.
    Reroute,
}

/// Anything that can happen, the usual more often.
pub fn step() -> impl Strategy<Value = Step> {
    let pick = || any::<u8>().prop_map(Pick);
    // The first client and the first channel mostly: what meets nothing shows nothing.
    let few = || prop_oneof![3 => Just(Pick(0)), 1 => pick()];
    let ask = prop_oneof![
        4 => prop::bool::weighted(0.2).prop_map(|v6| Ask::Allocate { v6 }),
        1 => Just(Ask::Refresh),
        1 => Just(Ask::Delete),
        1 => pick().prop_map(|peer| Ask::Permission { peer }),
        7 => (few(), pick()).prop_map(|(channel, peer)| Ask::ChannelBind { channel, peer }),
    ];
    prop_oneof![
        40 => (pick(), ask, prop::bool::weighted(0.1))
            .prop_map(|(client, ask, is_forged)| Step::Ask { client, ask, is_forged }),
        4 => pick().prop_map(|client| Step::AskAgain { client }),
        200 => (pick(), pick()).prop_map(|(which, length)| Step::Talk { which, length }),
        10 => (pick(), few(), pick())
            .prop_map(|(client, channel, length)| Step::ClientSends { client, channel, length }),
        4 => (pick(), pick()).prop_map(|(client, peer)| Step::Indication { client, peer }),
        10 => (pick(), pick(), pick())
            .prop_map(|(peer, relayed, length)| Step::PeerSends { peer, relayed, length }),
        140 => pick().prop_map(|which| Step::Arrive { which }),
        8 => pick().prop_map(|which| Step::Lose { which }),
        8 => pick().prop_map(|which| Step::Copy { which }),
        70 => pick().prop_map(|datagrams| Step::ServerWorks { datagrams }),
        4 => Just(Step::ServerDrops),
        30 => pick().prop_map(|records| Step::DaemonWorks { records }),
        60 => Just(Step::Settle),
        30 => pick().prop_map(|time| Step::Milliseconds { time }),
        20 => pick().prop_map(|time| Step::Seconds { time }),
        2 => pick().prop_map(|time| Step::Minutes { time }),
        1 => Just(Step::ServerRestarts),
        2 => pick().prop_map(|client| Step::Kick { client }),
        2 => Just(Step::DaemonHearsOfSockets),
        2 => Just(Step::DaemonRestarts),
        6 => Just(Step::DaemonIsReplaced),
        2 => Just(Step::Reroute),
    ]
}
