//! A simple TURN server (RFC 8656) over one socket queue, with a clock and no secrets: whoever calls himself by the client's
//! name is the client.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use turn_testkit::cases::SECOND;
use turn_testkit::oracle::Leg;
use turn_testkit::packet::channel_data;
use turn_testkit::turn_client::message::*;

use crate::place;

/// What the model's clients sign with.
pub const NAME: &[u8] = b"client";

const CHANNEL_LIFETIME: u64 = 600 * SECOND;
const PERMISSION_LIFETIME: u64 = 300 * SECOND;
const RELAY_PORTS: std::ops::Range<u16> = 49160..49165;

/// The server's memory. A restart empties it.
#[derive(Debug, Default)]
pub struct Server {
    allocations: Vec<Allocation>,
    /// What advertised addresses are on the wire where they are others (1:1 NAT).
    is_behind_nat: bool,
}

#[derive(Debug)]
struct Allocation {
    client: SocketAddr,
    listener: SocketAddr,
    /// On the wire.
    relayed: SocketAddr,
    transaction: TransactionId,
    ends: u64,
    channels: BTreeMap<u16, (SocketAddr, u64)>,
    permissions: BTreeMap<IpAddr, u64>,
}

/// What the server sends.
#[derive(Clone, Debug)]
pub struct Sent {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub payload: Vec<u8>,
    /// Where it relayed channel data: from which leg to which.
    pub relayed: Option<(Leg, Leg)>,
}

impl Server {
    /// One that nobody has an allocation with.
    pub fn new(is_behind_nat: bool) -> Self {
        Self { is_behind_nat, ..Self::default() }
    }

    /// Handles a datagram.
    pub fn handle(
        &mut self,
        now: u64,
        source: SocketAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> Vec<Sent> {
        self.allocations.retain(|allocation| now < allocation.ends);
        if let Some(owner) = self.allocations.iter().position(|allocation| allocation.relayed == destination)
        {
            let from = Leg { source, destination, channel: None };
            return self.send_to_client(now, owner, source, payload, from).into_iter().collect();
        }
        if !place::LISTENERS.contains(&destination) {
            return Vec::new();
        }
        if payload.first().is_some_and(|first| first >> 6 == 1) {
            return self.handle_channel_data(now, source, destination, payload).into_iter().collect();
        }
        match Message::parse(payload) {
            Ok(message) if message.class == Class::Request => {
                let answer = self.answer(now, source, destination, &message).build();
                vec![Sent { source: destination, destination: source, payload: answer, relayed: None }]
            }
            Ok(message) if message.method == METHOD_SEND => {
                self.handle_indication(now, source, destination, &message).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }

    /// Forgets a client's allocation, without a word; its relay socket closes.
    pub fn kick(&mut self, client: SocketAddr) -> Option<SocketAddr> {
        let index = self.allocations.iter().position(|allocation| allocation.client == client)?;
        Some(self.allocations.swap_remove(index).relayed)
    }

    /// Forgets everything.
    pub fn restart(&mut self) -> Vec<SocketAddr> {
        self.allocations.drain(..).map(|allocation| allocation.relayed).collect()
    }

    /// The relayed transport addresses of all allocations, on the wire.
    pub fn relayed(&self) -> Vec<SocketAddr> {
        self.allocations.iter().map(|allocation| allocation.relayed).collect()
    }

    /// The channels that are bound: client, channel, peer, relayed transport address.
    pub fn channels(&self) -> Vec<(SocketAddr, u16, SocketAddr, SocketAddr)> {
        let of = |one: &Allocation| {
            let (client, relayed) = (one.client, one.relayed);
            let channels: Vec<_> =
                one.channels.iter().map(|(channel, (peer, _))| (client, *channel, *peer, relayed)).collect();
            channels
        };
        self.allocations.iter().flat_map(of).collect()
    }

    /// The address that clients are told.
    pub fn advertised(&self, relayed: SocketAddr) -> SocketAddr {
        match relayed {
            SocketAddr::V4(_) if self.is_behind_nat => SocketAddr::new(place::PUBLIC, relayed.port()),
            _ => relayed,
        }
    }

    fn of(&mut self, client: SocketAddr, listener: SocketAddr) -> Option<&mut Allocation> {
        let is_its = |one: &&mut Allocation| one.client == client && one.listener == listener;
        self.allocations.iter_mut().find(is_its)
    }

    fn answer(
        &mut self,
        now: u64,
        client: SocketAddr,
        listener: SocketAddr,
        request: &Message,
    ) -> MessageBuilder {
        let respond = |class| MessageBuilder::new(request.method, class).transaction(request.transaction);
        let refuse = |code: u16| {
            respond(Class::Error).attribute(ERROR_CODE, &[0, 0, (code / 100) as u8, (code % 100) as u8])
        };
        if request.attribute(USERNAME) != Some(NAME) {
            return refuse(401);
        }
        if request.method == METHOD_ALLOCATE {
            return self.allocate(now, client, listener, request).unwrap_or_else(refuse);
        }
        let Some(allocation) = self.of(client, listener) else { return refuse(437) };
        match request.method {
            METHOD_REFRESH => {
                let seconds = request.lifetime().unwrap_or(600);
                allocation.ends = now + u64::from(seconds) * SECOND;
                respond(Class::Success).lifetime(seconds)
            }
            METHOD_CREATE_PERMISSION => {
                let Some(peer) = request.xor_address(XOR_PEER_ADDRESS) else { return refuse(400) };
                allocation.permissions.insert(peer.ip(), now + PERMISSION_LIFETIME);
                respond(Class::Success)
            }
            METHOD_CHANNEL_BIND => {
                let channel =
                    request.attribute(CHANNEL_NUMBER).map(|value| u16::from_be_bytes([value[0], value[1]]));
                let peer = request.xor_address(XOR_PEER_ADDRESS);
                let (Some(channel), Some(peer)) = (channel, peer) else { return refuse(400) };
                if peer.is_ipv4() != allocation.relayed.is_ipv4() {
                    return refuse(443);
                }
                allocation.channels.retain(|_, (_, ends)| now < *ends);
                let is_other =
                    |(&other, &(of, _)): (&u16, &(SocketAddr, u64))| (other == channel) != (of == peer);
                if allocation.channels.iter().any(is_other) {
                    return refuse(400);
                }
                allocation.channels.insert(channel, (peer, now + CHANNEL_LIFETIME));
                allocation.permissions.insert(peer.ip(), now + PERMISSION_LIFETIME);
                respond(Class::Success)
            }
            _ => refuse(400),
        }
    }

    fn allocate(
        &mut self,
        now: u64,
        client: SocketAddr,
        listener: SocketAddr,
        request: &Message,
    ) -> Result<MessageBuilder, u16> {
        if let Some(allocation) = self.of(client, listener) {
            let (is_again, relayed) = (allocation.transaction == request.transaction, allocation.relayed);
            return if is_again { Ok(self.granted(client, relayed, request)) } else { Err(437) };
        }
        let host = if request.attribute(REQUESTED_ADDRESS_FAMILY).is_some() {
            place::RELAY_V6
        } else {
            place::RELAY
        };
        let is_free = |port: &u16| self.relayed().iter().all(|relayed| relayed.port() != *port);
        let port = RELAY_PORTS.clone().find(is_free).ok_or(508_u16)?;
        let relayed = SocketAddr::new(host, port);
        self.allocations.push(Allocation {
            client,
            listener,
            relayed,
            transaction: request.transaction,
            ends: now + 600 * SECOND,
            channels: BTreeMap::new(),
            permissions: BTreeMap::new(),
        });
        Ok(self.granted(client, relayed, request))
    }

    fn granted(&self, client: SocketAddr, relayed: SocketAddr, request: &Message) -> MessageBuilder {
        MessageBuilder::new(METHOD_ALLOCATE, Class::Success)
            .transaction(request.transaction)
            .xor_address(XOR_RELAYED_ADDRESS, self.advertised(relayed))
            .xor_address(XOR_MAPPED_ADDRESS, client)
            .lifetime(600)
    }

    fn handle_channel_data(
        &mut self,
        now: u64,
        client: SocketAddr,
        listener: SocketAddr,
        payload: &[u8],
    ) -> Option<Sent> {
        let ([c0, c1, l0, l1], rest) = payload.split_first_chunk()?;
        let channel = u16::from_be_bytes([*c0, *c1]);
        let data = rest.get(..usize::from(u16::from_be_bytes([*l0, *l1])))?;
        let allocation = self.of(client, listener)?;
        let (peer, ends) = *allocation.channels.get(&channel)?;
        if ends <= now {
            return None;
        }
        let from = Leg { source: client, destination: listener, channel: Some(channel) };
        let relayed = allocation.relayed;
        self.send_to_peer(now, client, relayed, peer, data, Some(from))
    }

    fn handle_indication(
        &mut self,
        now: u64,
        client: SocketAddr,
        listener: SocketAddr,
        message: &Message,
    ) -> Option<Sent> {
        let peer = message.xor_address(XOR_PEER_ADDRESS)?;
        let data = message.attribute(DATA)?;
        let relayed = self.of(client, listener)?.relayed;
        self.send_to_peer(now, client, relayed, peer, data, None)
    }

    fn send_to_peer(
        &mut self,
        now: u64,
        client: SocketAddr,
        relayed: SocketAddr,
        peer: SocketAddr,
        data: &[u8],
        from: Option<Leg>,
    ) -> Option<Sent> {
        let allocation =
            self.allocations.iter().find(|one| one.client == client && one.relayed == relayed)?;
        if relayed.is_ipv4() != peer.is_ipv4() || *allocation.permissions.get(&peer.ip())? <= now {
            return None;
        }
        let output = Leg { source: relayed, destination: peer, channel: None };
        // By the loopback interface, which nobody looks at.
        if let Some(owner) = self.allocations.iter().position(|allocation| allocation.relayed == peer) {
            let sent = self.send_to_client(now, owner, relayed, data, output)?;
            let relayed = from.zip(sent.relayed).map(|(from, (_, to))| (from, to));
            return Some(Sent { relayed, ..sent });
        }
        Some(Sent {
            source: relayed,
            destination: peer,
            payload: data.to_vec(),
            relayed: from.map(|from| (from, output)),
        })
    }

    fn send_to_client(
        &self,
        now: u64,
        owner: usize,
        peer: SocketAddr,
        data: &[u8],
        from: Leg,
    ) -> Option<Sent> {
        let Allocation { client, listener, channels, permissions, .. } = &self.allocations[owner];
        if *permissions.get(&peer.ip())? <= now {
            return None;
        }
        let bound = channels.iter().find(|(_, (of, ends))| *of == peer && now < *ends);
        let (payload, relayed) = match bound {
            Some((channel, _)) => {
                let to = Leg { source: *listener, destination: *client, channel: Some(*channel) };
                (channel_data(*channel, data, &[]), Some((from, to)))
            }
            None => {
                let indication = MessageBuilder::new(METHOD_DATA, Class::Indication).transaction([0xdd; 12]);
                (indication.xor_address(XOR_PEER_ADDRESS, peer).attribute(DATA, data).build(), None)
            }
        };
        Some(Sent { source: *listener, destination: *client, payload, relayed })
    }
}
