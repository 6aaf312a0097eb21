//! From what the snoop says to entries of the maps.
//!
//! A channel binding is two flows, one per direction, and the outputs by which the server is recognised doing the
//! same. This is the one place that knows how the two hang together.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use turn_datapath::{Flow, FlowKey};
use turn_snoop::{ChannelBinding, FiveTuple};
use turn_wire::{Be16, IpAddress};

/// The maps that hold flows, as this file needs them.
pub trait FlowMaps {
    /// Inserts a flow unless there is one with this key.
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError>;
    /// Removes a flow, if it is there.
    fn remove_flow(&mut self, key: &FlowKey);
    /// Reads a flow.
    fn flow(&self, key: &FlowKey) -> Option<Flow>;
    /// Says which flow an output proves.
    fn insert_expected(&mut self, output: &FlowKey, flow: &FlowKey) -> Result<(), InsertError>;
    /// Forgets an expected output, if it is there.
    fn remove_expected(&mut self, output: &FlowKey);
    /// Waits until no program can still hold an entry that was removed before. The kernel gives a removed entry's
    /// memory to the next one, so nothing is inserted before that.
    fn settle(&mut self);
}

/// Why an entry was not inserted.
#[derive(Debug, thiserror::Error)]
pub enum InsertError {
    /// The map is full.
    #[error("the map is full; --max-flows makes it larger")]
    Full,
    /// There is one with this key.
    #[error("there is one already")]
    Exists,
    /// Anything else.
    #[error("the kernel refused it")]
    Refused(#[source] aya::maps::MapError),
}

/// Why a direction of a binding is not in the kernel's hands, as far as this table knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The map of flows is full.
    TableFull,
    /// Another binding has the same packets, or expects the same output.
    Ambiguous,
}

/// Both directions of a channel binding.
#[derive(Clone, Copy, Debug)]
pub struct BoundFlows {
    /// The binding.
    pub binding: ChannelBinding,
    /// The relayed transport address on the wire, as far as it is known: at first what the server advertised, then
    /// what it was seen to send from.
    pub relayed: Option<SocketAddr>,
    /// From client to peer.
    pub client_to_peer: Direction,
    /// From peer to client; none until the relayed transport address is known.
    pub peer_to_client: Option<Direction>,
}

/// One direction.
#[derive(Clone, Copy, Debug)]
pub struct Direction {
    /// Key of its flow.
    pub key: FlowKey,
    /// What stands in its way.
    pub obstacle: Option<Obstacle>,
    installed: bool,
}

type BindingId = (FiveTuple, u16);

/// All bindings that are known, and their entries.
pub struct FlowTable<M> {
    maps: M,
    bindings: HashMap<BindingId, BoundFlows>,
    /// Whose flow a key is.
    owners: HashMap<FlowKey, BindingId>,
    /// Which flows expect an output. Only an output of one flow is in the map.
    expecting: HashMap<FlowKey, Vec<FlowKey>>,
    /// What an advertised address is on the wire, where that is another one (1:1 NAT).
    wire_addresses: HashMap<IpAddr, IpAddr>,
    unsettled: bool,
    labels: RandomState,
}

impl<M: FlowMaps> FlowTable<M> {
    /// An empty table over empty maps.
    pub fn new(maps: M) -> Self {
        Self {
            maps,
            bindings: HashMap::new(),
            owners: HashMap::new(),
            expecting: HashMap::new(),
            wire_addresses: HashMap::new(),
            unsettled: false,
            labels: RandomState::new(),
        }
    }

    /// All bindings.
    pub fn bindings(&self) -> impl Iterator<Item = &BoundFlows> {
        self.bindings.values()
    }

    /// How many flows are in the map.
    pub fn flow_count(&self) -> usize {
        self.owners.len()
    }

    /// What the kernel knows of a flow.
    pub fn flow(&self, direction: &Direction) -> Option<Flow> {
        direction.installed.then(|| self.maps.flow(&direction.key)).flatten()
    }

    /// The server bound a channel. What is installed already stays, with its lease and its counters; what could not
    /// be installed before is tried again.
    pub fn bind(&mut self, binding: ChannelBinding) {
        let id = (binding.five_tuple, binding.channel);
        let mut bound = match self.bindings.remove(&id) {
            Some(bound) if bound.binding == binding => bound,
            Some(other) => {
                self.withdraw(other);
                self.plan(binding)
            }
            None => self.plan(binding),
        };
        self.install_client_to_peer(&mut bound);
        self.install_peer_to_client(&mut bound);
        self.bindings.insert(id, bound);
    }

    /// The binding is over.
    pub fn unbind(&mut self, binding: &ChannelBinding) {
        let id = (binding.five_tuple, binding.channel);
        if self.bindings.get(&id).is_some_and(|bound| bound.binding == *binding)
            && let Some(bound) = self.bindings.remove(&id)
        {
            self.withdraw(bound);
        }
    }

    /// The server was seen sending a flow's packets from this address. Where the flow goes to a peer, the peer will
    /// answer to that address, whatever the server advertised.
    pub fn armed(&mut self, key: &FlowKey, source: SocketAddr) {
        let Some(id) = self.owners.get(key).copied() else { return };
        let Some(bound) = self.bindings.get(&id) else { return };
        if bound.client_to_peer.key != *key || bound.relayed == Some(source) {
            return;
        }
        let mut bound = *bound;
        if let Some(advertised) = bound.binding.relayed {
            self.wire_addresses.insert(advertised.ip(), source.ip());
        }
        if let Some(direction) = bound.peer_to_client {
            self.remove_direction(&direction, &outputs_to_client(&bound.binding));
        }
        bound.relayed = Some(source);
        bound.peer_to_client = Some(Direction::planned(key_of(bound.binding.peer, source, 0)));
        self.install_peer_to_client(&mut bound);
        self.bindings.insert(id, bound);
    }

    fn plan(&self, binding: ChannelBinding) -> BoundFlows {
        let FiveTuple { client, server } = binding.five_tuple;
        let relayed = binding.relayed.map(|advertised| {
            let wire_address = self.wire_addresses.get(&advertised.ip()).copied().unwrap_or(advertised.ip());
            SocketAddr::new(wire_address, advertised.port())
        });
        BoundFlows {
            binding,
            relayed,
            client_to_peer: Direction::planned(key_of(client, server, binding.channel)),
            peer_to_client: relayed.map(|relayed| Direction::planned(key_of(binding.peer, relayed, 0))),
        }
    }

    fn install_client_to_peer(&mut self, bound: &mut BoundFlows) {
        // Where the relayed transport address is not known, the witness brings it.
        let relayed = bound.relayed.unwrap_or(unspecified_like(bound.binding.peer));
        let flow = self.flow_between(relayed, bound.binding.peer, 0);
        let outputs = outputs_to_peer(&bound.binding);
        let id = (bound.binding.five_tuple, bound.binding.channel);
        self.install(&mut bound.client_to_peer, flow, &outputs, id);
    }

    fn install_peer_to_client(&mut self, bound: &mut BoundFlows) {
        let FiveTuple { client, server } = bound.binding.five_tuple;
        let flow = self.flow_between(server, client, bound.binding.channel);
        let outputs = outputs_to_client(&bound.binding);
        let id = (bound.binding.five_tuple, bound.binding.channel);
        if let Some(direction) = &mut bound.peer_to_client {
            self.install(direction, flow, &outputs, id);
        }
    }

    fn flow_between(&self, source: SocketAddr, destination: SocketAddr, channel: u16) -> Flow {
        Flow {
            out_source: source.ip().into(),
            out_destination: destination.ip().into(),
            out_source_port: Be16::new(source.port()),
            out_destination_port: Be16::new(destination.port()),
            out_channel: Be16::new(channel),
            // Keyed, so that flow labels and identifications cannot be guessed from outside (RFC 6437 section 3).
            label: self.labels.hash_one((source, destination)) as u32,
            ..Flow::default()
        }
    }

    fn install(&mut self, direction: &mut Direction, flow: Flow, outputs: &[FlowKey], id: BindingId) {
        if direction.installed {
            return;
        }
        if std::mem::take(&mut self.unsettled) {
            self.maps.settle();
        }
        direction.obstacle = match self.maps.insert_flow(&direction.key, &flow) {
            Ok(()) => None,
            Err(InsertError::Exists) => Some(Obstacle::Ambiguous),
            Err(InsertError::Full) => Some(Obstacle::TableFull),
            Err(error @ InsertError::Refused(_)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot install a flow");
                Some(Obstacle::TableFull)
            }
        };
        if direction.obstacle.is_some() {
            return;
        }
        direction.installed = true;
        self.owners.insert(direction.key, id);
        for output in outputs {
            self.expecting.entry(*output).or_default().push(direction.key);
            self.expect(output);
        }
    }

    /// Brings the map in line with who expects an output: an output that two flows expect proves neither.
    fn expect(&mut self, output: &FlowKey) {
        match self.expecting.get(output).map(Vec::as_slice) {
            Some([only]) => {
                if let Err(error) = self.maps.insert_expected(output, only) {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "cannot install an expected output"
                    );
                }
            }
            Some([]) => {
                self.expecting.remove(output);
                self.maps.remove_expected(output);
            }
            Some(_) | None => self.maps.remove_expected(output),
        }
    }

    fn withdraw(&mut self, bound: BoundFlows) {
        self.remove_direction(&bound.client_to_peer, &outputs_to_peer(&bound.binding));
        if let Some(direction) = &bound.peer_to_client {
            self.remove_direction(direction, &outputs_to_client(&bound.binding));
        }
    }

    fn remove_direction(&mut self, direction: &Direction, outputs: &[FlowKey]) {
        if !direction.installed {
            return;
        }
        for output in outputs {
            if let Some(flows) = self.expecting.get_mut(output) {
                flows.retain(|key| *key != direction.key);
            }
            self.expect(output);
        }
        self.maps.remove_flow(&direction.key);
        self.owners.remove(&direction.key);
        self.unsettled = true;
    }
}

impl Direction {
    fn planned(key: FlowKey) -> Self {
        Self { key, obstacle: None, installed: false }
    }
}

/// What the server sends when it relays from client to peer. Its address is in one of the outputs only: behind
/// 1:1 NAT, and with a relay socket that is bound to no address, it is not the advertised one. Of an allocation that is
/// older than turn-bpf not even the port is known.
fn outputs_to_peer(binding: &ChannelBinding) -> Vec<FlowKey> {
    let from_anywhere = |port| FlowKey {
        source: IpAddress::ANY,
        source_port: Be16::new(port),
        ..key_of(unspecified_like(binding.peer), binding.peer, 0)
    };
    match binding.relayed {
        Some(advertised) => vec![key_of(advertised, binding.peer, 0), from_anywhere(advertised.port())],
        None => vec![from_anywhere(0)],
    }
}

/// No address and no port, of the other's family.
pub fn unspecified_like(other: SocketAddr) -> SocketAddr {
    let ip =
        if other.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
}

fn outputs_to_client(binding: &ChannelBinding) -> [FlowKey; 1] {
    let FiveTuple { client, server } = binding.five_tuple;
    [key_of(server, client, binding.channel)]
}

/// The key of packets from one transport address to another.
pub fn key_of(source: SocketAddr, destination: SocketAddr, channel: u16) -> FlowKey {
    FlowKey {
        source: source.ip().into(),
        destination: destination.ip().into(),
        source_port: Be16::new(source.port()),
        destination_port: Be16::new(destination.port()),
        channel: Be16::new(channel),
        reserved: Be16::new(0),
    }
}
