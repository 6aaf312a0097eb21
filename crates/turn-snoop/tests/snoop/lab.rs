//! A snoop with the addresses of a small network, and the usual handshakes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use turn_snoop::{ChannelBinding, Command, FiveTuple, Limits, ListeningPorts, Refusal, Revocation, Snoop};

use crate::message::*;

pub const CLIENT: &str = "198.51.100.1:40000";
pub const OTHER_CLIENT: &str = "198.51.100.2:40001";
pub const THIRD_CLIENT: &str = "198.51.100.3:40002";
pub const SERVER: &str = "192.0.2.1:3478";
pub const RELAYED: &str = "192.0.2.1:49160";
pub const RELAYED_V6: &str = "[2001:db8:1::1]:49160";
pub const OTHER_RELAYED: &str = "192.0.2.1:49162";
pub const PEER: &str = "203.0.113.1:5000";
pub const OTHER_PEER: &str = "203.0.113.2:5000";
pub const PEER_V6: &str = "[2001:db8:3::1]:5000";
pub const ATTACKER: &str = "203.0.113.66:6666";

pub fn at(address: &str) -> SocketAddr {
    address.parse().expect("address of the lab")
}

pub fn five_tuple(client: &str) -> FiveTuple {
    FiveTuple { client: at(client), server: at(SERVER) }
}

pub fn binding(channel: u16, peer: &str) -> ChannelBinding {
    let relayed = if at(peer).is_ipv6() { RELAYED_V6 } else { RELAYED };
    ChannelBinding { five_tuple: five_tuple(CLIENT), channel, peer: at(peer), relayed: Some(at(relayed)) }
}

pub fn bind(channel: u16, peer: &str) -> Command {
    Command::Bind(binding(channel, peer))
}

pub fn unbind(channel: u16, peer: &str, revocation: Revocation) -> Command {
    Command::Unbind(binding(channel, peer), revocation)
}

pub fn forget() -> Command {
    Command::Forget(five_tuple(CLIENT))
}

pub fn channel_bind(id: Id, channel: u16, peer: &str) -> Message {
    Message::new(CHANNEL_BIND_REQUEST, id).channel(channel).peer(at(peer)).credentials().integrity()
}

pub fn channel_bound(id: Id) -> Message {
    Message::new(CHANNEL_BIND_SUCCESS, id).integrity()
}

pub fn allocated(id: Id, client: &str, relayed: &[&str]) -> Message {
    let message = Message::new(ALLOCATE_SUCCESS, id).mapped(at(client)).lifetime(600);
    relayed.iter().fold(message, |message, relayed| message.relayed(at(relayed)))
}

pub struct Lab {
    pub snoop: Snoop,
    pub now: Duration,
    refusals: HashMap<Refusal, u64>,
}

impl Lab {
    pub fn new() -> Self {
        Self::with_limits(Limits::default())
    }

    pub fn with_limits(limits: Limits) -> Self {
        Self { snoop: Snoop::new(limits), now: Duration::from_secs(1000), refusals: HashMap::new() }
    }

    /// Whose servers listen at these ports only.
    pub fn listening_at(self, ports: &[u16]) -> Self {
        let ports = ListeningPorts::These(ports.iter().copied().collect());
        Self { snoop: self.snoop.listening_at(ports), ..self }
    }

    /// With one allocation of `CLIENT`.
    pub fn allocated() -> Self {
        let mut lab = Self::new();
        lab.allocate(0xa0, CLIENT, &[RELAYED]);
        lab
    }

    /// With one allocation of `CLIENT` that has a relayed transport address of each family.
    pub fn dual() -> Self {
        let mut lab = Self::new();
        lab.allocate(0xa0, CLIENT, &[RELAYED, RELAYED_V6]);
        lab
    }

    /// With one allocation and one binding.
    pub fn bound() -> Self {
        let mut lab = Self::allocated();
        lab.bind(0xb0, 0x4000, PEER);
        lab
    }

    pub fn allocate(&mut self, id: Id, client: &str, relayed: &[&str]) {
        let before = self.snoop.allocation_count();
        self.response_to(client, &allocated(id, client, relayed));
        assert_eq!(self.snoop.allocation_count(), before + 1, "the allocation is learned");
        assert_eq!(self.commands(), [], "an allocation alone binds nothing");
    }

    pub fn bind(&mut self, id: Id, channel: u16, peer: &str) {
        self.request(&channel_bind(id, channel, peer));
        self.response(&channel_bound(id));
        assert_eq!(self.commands(), [bind(channel, peer)]);
        self.assert_nothing_refused();
    }

    pub fn request(&mut self, message: &Message) {
        self.request_bytes(CLIENT, &message.bytes());
    }

    pub fn response(&mut self, message: &Message) {
        self.response_to(CLIENT, message);
    }

    pub fn response_to(&mut self, client: &str, message: &Message) {
        self.response_between(SERVER, client, message);
    }

    pub fn response_between(&mut self, source: &str, destination: &str, message: &Message) {
        self.snoop.handle_response(self.now, at(source), at(destination), &message.bytes());
    }

    pub fn request_bytes(&mut self, client: &str, message: &[u8]) {
        self.snoop.handle_request(self.now, at(client), at(SERVER), message);
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.snoop.handle_timeout(self.now);
    }

    pub fn commands(&mut self) -> Vec<Command> {
        std::iter::from_fn(|| self.snoop.poll_command()).collect()
    }

    /// The bindings that are live, by channel.
    pub fn bindings(&self) -> Vec<(u16, SocketAddr)> {
        let allocations = self.snoop.allocations();
        let bindings = allocations.flat_map(|allocation| allocation.bindings());
        let mut bindings: Vec<_> = bindings.map(|binding| (binding.channel, binding.peer)).collect();
        bindings.sort_unstable();
        bindings
    }

    /// What has been refused since the last call.
    pub fn refused(&mut self) -> Vec<Refusal> {
        let mut refused = Vec::new();
        for (refusal, count) in self.snoop.refusals() {
            let before = self.refusals.insert(refusal, count).unwrap_or(0);
            refused.extend((before..count).map(|_| refusal));
        }
        refused
    }

    #[track_caller]
    pub fn assert_refused(&mut self, refusal: Refusal) {
        assert_eq!(self.refused(), [refusal]);
        assert_eq!(self.commands(), [], "a refusal binds nothing");
    }

    #[track_caller]
    pub fn assert_nothing_refused(&mut self) {
        assert_eq!(self.refused(), []);
    }
}
