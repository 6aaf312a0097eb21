//! What sessions carried: while they last, when they end, and in all.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::{Add, AddAssign};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use turn_datapath::{Flow, FlowKey};
use turn_snoop::{ChannelBinding, Revocation, User};
use turn_wire::Be16;

use super::{BindingId, BoundFlows, Direction, FlowMaps, FlowTable};

/// Packets, and bytes of application data in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Relayed in the kernel.
    pub kernel_packets: u64,
    /// Bytes in them.
    pub kernel_bytes: u64,
    /// Left to the server.
    pub spilled_packets: u64,
    /// Bytes in them.
    pub spilled_bytes: u64,
}

/// From whom to whom a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Course {
    /// ChannelData that becomes UDP.
    ClientToPeer,
    /// UDP that becomes ChannelData.
    PeerToClient,
    /// ChannelData between two clients of one server that have bound channels to each other.
    ClientToClient,
}

/// Where a session comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// When its channel was bound, by the calendar.
    pub time: SystemTime,
    /// The same by a clock that is never set.
    pub instant: Instant,
    /// Who bound it, as far as that was said in clear.
    pub user: Option<Arc<User>>,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The snoop heard that the server no longer has the binding.
    Revoked(Revocation),
    /// The server closed the relay socket.
    SocketClosed,
    /// The channel was bound to another peer, or at another relayed transport address.
    Rebound,
    /// An operator wanted it to be forgotten.
    Evicted,
    /// turn-bpf ends.
    Stopped,
}

/// A session that is over.
#[derive(Clone, Debug)]
pub struct EndedSession {
    /// What was bound.
    pub binding: ChannelBinding,
    /// The relayed transport address on the wire, as far as it was known.
    pub relayed: Option<SocketAddr>,
    /// Where it came from.
    pub origin: Origin,
    /// Why it ended.
    pub cause: Cause,
    /// What it carried: to the peer, to the client.
    pub traffic: [Traffic; 2],
}

impl<M: FlowMaps> FlowTable<M> {
    /// The sessions that have ended since the last call.
    pub fn take_ended(&mut self) -> Vec<EndedSession> {
        std::mem::take(&mut self.ended)
    }

    /// Who bound a channel.
    pub fn set_user(&mut self, binding: &ChannelBinding, user: Arc<User>) {
        if let Some(bound) = self.bindings.get_mut(&super::id_of(binding)) {
            bound.origin.user = Some(user);
        }
    }

    /// What a session has carried so far: to the peer, to the client.
    pub fn traffic(&self, bound: &BoundFlows) -> [Traffic; 2] {
        let of = |direction: Option<&Direction>| {
            direction
                .and_then(|direction| self.flow(direction))
                .map_or_else(Traffic::default, |flow| Traffic::from(&flow))
        };
        let [to_peer, to_client] = bound.carried;
        [to_peer + of(Some(self.client_to_peer(bound))), to_client + of(self.peer_to_client(bound))]
    }

    /// From whom to whom a flow of a binding goes.
    pub fn course(&self, bound: &BoundFlows, key: &FlowKey) -> Course {
        match (key.channel == Be16::new(0), bound.counterpart) {
            (true, _) => Course::PeerToClient,
            (false, None) => Course::ClientToPeer,
            (false, Some(_)) => Course::ClientToClient,
        }
    }

    /// The bindings, for [`sample`](Self::sample).
    pub fn ids(&self) -> Vec<BindingId> {
        self.bindings.keys().copied().collect()
    }

    /// Brings the totals up to date with the kernel's counters of these bindings. Says how many of their flows have a lease
    /// at this time.
    pub fn sample(&mut self, ids: &[BindingId], now: u64) -> u64 {
        let mut armed = 0;
        for id in ids {
            let Some(bound) = self.bindings.get_mut(id) else { continue };
            let directions = [Some(&mut bound.client_to_peer), bound.peer_to_client.as_mut()];
            for direction in directions.into_iter().flatten().filter(|direction| direction.is_installed) {
                let Some(flow) = self.maps.flow(&direction.key) else { continue };
                armed += u64::from(flow.lease_until > now);
                count(&mut self.totals, direction, &flow);
            }
        }
        armed
    }

    /// The binding with this id, if there still is one.
    pub fn binding(&self, id: BindingId) -> Option<&BoundFlows> {
        self.bindings.get(&id)
    }

    /// What all flows have carried, those included that are gone, by the interface that the packets came by (zero: none was
    /// noted) and by course; as of the latest [`sample`](Self::sample) of each.
    pub fn totals(&self) -> impl Iterator<Item = ((u32, Course), Traffic)> {
        self.totals.iter().map(|(key, traffic)| (*key, *traffic))
    }

    /// Keeps what flows of a binding carried that are gone.
    pub(super) fn carry(&mut self, id: BindingId, to_peer: Traffic, to_client: Traffic) {
        if let Some(bound) = self.bindings.get_mut(&id) {
            self.changed.insert(id);
            bound.carried[0] += to_peer;
            bound.carried[1] += to_client;
        }
    }
}

/// Adds to the totals what a flow has carried since it was last looked at. Says to which of them.
pub(super) fn count(
    totals: &mut HashMap<(u32, Course), Traffic>,
    direction: &mut Direction,
    flow: &Flow,
) -> (u32, Course) {
    let now = Traffic::from(flow);
    let ifindex = if flow.in_ifindex == 0 { flow.noted_ifindex } else { flow.in_ifindex };
    let course = (ifindex, Course::of(direction, flow));
    let new = now.since(&direction.counted);
    if new != Traffic::default() {
        *totals.entry(course).or_default() += new;
    }
    direction.counted = now;
    course
}

impl Traffic {
    /// All packets.
    pub fn packets(&self) -> u64 {
        self.kernel_packets.saturating_add(self.spilled_packets)
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.kernel_bytes.saturating_add(self.spilled_bytes)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            kernel_packets: self.kernel_packets.saturating_sub(before.kernel_packets),
            kernel_bytes: self.kernel_bytes.saturating_sub(before.kernel_bytes),
            spilled_packets: self.spilled_packets.saturating_sub(before.spilled_packets),
            spilled_bytes: self.spilled_bytes.saturating_sub(before.spilled_bytes),
        }
    }
}

impl From<&Flow> for Traffic {
    fn from(flow: &Flow) -> Self {
        Self {
            kernel_packets: flow.kernel_packets,
            kernel_bytes: flow.kernel_bytes,
            spilled_packets: flow.spilled_packets,
            spilled_bytes: flow.spilled_bytes,
        }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.kernel_packets = self.kernel_packets.saturating_add(other.kernel_packets);
        self.kernel_bytes = self.kernel_bytes.saturating_add(other.kernel_bytes);
        self.spilled_packets = self.spilled_packets.saturating_add(other.spilled_packets);
        self.spilled_bytes = self.spilled_bytes.saturating_add(other.spilled_bytes);
    }
}

impl Course {
    /// The name in metrics and events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientToPeer => "client_to_peer",
            Self::PeerToClient => "peer_to_client",
            Self::ClientToClient => "client_to_client",
        }
    }

    fn of(direction: &Direction, flow: &Flow) -> Self {
        match (direction.key.channel == Be16::new(0), flow.out_channel == Be16::new(0)) {
            (true, _) => Self::PeerToClient,
            (false, true) => Self::ClientToPeer,
            (false, false) => Self::ClientToClient,
        }
    }
}

impl Origin {
    /// A session that begins now.
    pub fn now() -> Self {
        Self { time: SystemTime::now(), instant: Instant::now(), user: None }
    }
}

impl Cause {
    /// Every cause.
    pub fn all() -> impl Iterator<Item = Self> {
        // A binding that moves and one whose channel or peer the server bound anew have the same name.
        let revoked = Revocation::ALL.iter().map(|revocation| Self::Revoked(*revocation));
        revoked.chain([Self::SocketClosed, Self::Evicted, Self::Stopped])
    }

    /// The name in logs, events and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked(revocation) => revocation.as_str(),
            Self::SocketClosed => "socket_closed",
            Self::Rebound => "rebound",
            Self::Evicted => "evicted",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
