//! From what the snoop says to entries of the maps.
//!
//! A channel binding is two flows, one per direction, and the outputs by which the server is recognised doing the
//! same. Two clients of one server that have bound channels to each other's relayed transport addresses are a pair:
//! one flow from client to client, proved by what the other client gets, whatever way it took inside the host.
//!
//! This is the one place that knows how all that hangs together.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use turn_datapath::{Flow, FlowKey};
use turn_snoop::{ChannelBinding, FiveTuple};
use turn_wire::Be16;

use self::adoption::Claim;

mod accounting;
mod adoption;
mod direction;
mod leases;
mod pausing;
#[cfg(test)]
mod tests;

pub use accounting::{Cause, Course, EndedSession, Origin, Traffic};
pub use adoption::{Entries, KeptSession};
pub use direction::Direction;

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
    /// An operator wants it to go through the server.
    Paused,
}

/// Lease and path for both directions of a binding that no packet was seen of yet. Of the flows only that part counts.
#[derive(Clone, Copy, Debug)]
pub struct HeadStart {
    /// From client to peer.
    pub client_to_peer: Flow,
    /// From peer to client.
    pub peer_to_client: Flow,
}

/// A channel binding and its flows.
#[derive(Clone, Debug)]
pub struct BoundFlows {
    /// The binding.
    pub binding: ChannelBinding,
    /// The relayed transport address on the wire, as far as it is known: at first what the server advertised, then
    /// what it was seen to send from.
    pub relayed: Option<SocketAddr>,
    /// The binding of the other client, where the two are a pair.
    counterpart: Option<BindingId>,
    client_to_peer: Direction,
    /// None until the relayed transport address is known, and none for a pair, where it is the counterpart's flow.
    peer_to_client: Option<Direction>,
    /// Where it comes from.
    pub origin: Origin,
    /// What flows carried that are no longer in the map: to the peer, to the client.
    carried: [Traffic; 2],
    is_paused: bool,
}

impl BoundFlows {
    /// Whether it is one of two clients of the same server that have bound channels to each other.
    pub fn is_of_pair(&self) -> bool {
        self.counterpart.is_some()
    }
}

/// What tells a binding from all others.
pub type BindingId = (FiveTuple, u16);

/// All bindings that are known, and their entries.
pub struct FlowTable<M> {
    maps: M,
    bindings: HashMap<BindingId, BoundFlows>,
    /// Bindings by advertised relayed transport address and peer, which is how counterparts find each other.
    by_ends: HashMap<(SocketAddr, SocketAddr), BindingId>,
    /// Bindings by the port of their relayed transport address, where that is known.
    by_relayed_port: HashMap<u16, Vec<BindingId>>,
    /// Whose flow a key is.
    owners: HashMap<FlowKey, BindingId>,
    /// Which flows expect an output. Only an output of one flow is in the map.
    expecting: HashMap<FlowKey, Vec<FlowKey>>,
    /// What an advertised address is on the wire, where that is another one (1:1 NAT).
    wire_addresses: HashMap<IpAddr, IpAddr>,
    /// Flows whose outputs prove nothing while an operator wants them to go through the server.
    paused: HashSet<FlowKey>,
    /// Entries were removed that programs may still hold.
    is_unsettled: bool,
    /// Bindings to be installed once that is over, with their head starts.
    waiting: Vec<(BindingId, Option<HeadStart>)>,
    labels: RandomState,
    totals: HashMap<(u32, Course), Traffic>,
    /// What flows carried that are gone, as far as totals have it.
    retired: HashMap<(u32, Course), Traffic>,
    ended: Vec<EndedSession>,
    /// Bindings that have changed, and parts of `retired`, since they were asked for.
    changed: HashSet<BindingId>,
    changed_totals: HashSet<(u32, Course)>,
    /// While the entries of an earlier table are adopted, the flows that no binding has claimed yet.
    unclaimed: Option<HashSet<FlowKey>>,
}

impl<M: FlowMaps> FlowTable<M> {
    /// An empty table over empty maps.
    pub fn new(maps: M) -> Self {
        Self {
            maps,
            bindings: HashMap::new(),
            by_ends: HashMap::new(),
            by_relayed_port: HashMap::new(),
            owners: HashMap::new(),
            expecting: HashMap::new(),
            wire_addresses: HashMap::new(),
            paused: HashSet::new(),
            is_unsettled: false,
            waiting: Vec::new(),
            labels: RandomState::new(),
            totals: HashMap::new(),
            retired: HashMap::new(),
            ended: Vec::new(),
            changed: HashSet::new(),
            changed_totals: HashSet::new(),
            unclaimed: None,
        }
    }

    /// The maps.
    pub fn maps(&self) -> &M {
        &self.maps
    }

    /// All bindings.
    pub fn bindings(&self) -> impl Iterator<Item = &BoundFlows> {
        self.bindings.values()
    }

    /// How many flows are in the map.
    pub fn flow_count(&self) -> usize {
        self.owners.len()
    }

    /// How many outputs are expected.
    pub fn expected_count(&self) -> usize {
        self.expecting.len()
    }

    /// The flows in the map, as the kernel knows them.
    pub fn flows(&self) -> impl Iterator<Item = Flow> {
        self.owners.keys().filter_map(|key| self.maps.flow(key))
    }

    /// The binding that a flow belongs to.
    pub fn owner(&self, key: &FlowKey) -> Option<&BoundFlows> {
        self.bindings.get(self.owners.get(key)?)
    }

    /// From client to peer.
    pub fn client_to_peer<'a>(&self, bound: &'a BoundFlows) -> &'a Direction {
        &bound.client_to_peer
    }

    /// From peer to client; none until the relayed transport address is known.
    pub fn peer_to_client<'a>(&'a self, bound: &'a BoundFlows) -> Option<&'a Direction> {
        match bound.counterpart {
            Some(counterpart) => self.bindings.get(&counterpart).map(|other| &other.client_to_peer),
            None => bound.peer_to_client.as_ref(),
        }
    }

    /// What the kernel knows of a flow.
    pub fn flow(&self, direction: &Direction) -> Option<Flow> {
        direction.is_installed.then(|| self.maps.flow(&direction.key)).flatten()
    }

    /// What the kernel knows of the flow with this key.
    pub fn flow_of(&self, key: &FlowKey) -> Option<Flow> {
        self.owners.contains_key(key).then(|| self.maps.flow(key)).flatten()
    }

    /// The server bound a channel. What is installed already stays, with its lease and its counters; what could not
    /// be installed before is tried again, with [`FlowTable::install_waiting`] at the latest. A flow that is installed now
    /// starts with the lease of the head start, or with none. True where the binding was not known before.
    pub fn bind(&mut self, binding: ChannelBinding, head_start: Option<HeadStart>) -> bool {
        let is_new = self.add_unless_known(binding);
        self.install_all(id_of(&binding), head_start);
        is_new
    }

    fn add_unless_known(&mut self, binding: ChannelBinding) -> bool {
        match self.bindings.get(&id_of(&binding)) {
            Some(bound) if bound.binding == binding => return false,
            Some(other) => {
                let other = other.binding;
                self.unbind(&other, Cause::Rebound);
                self.add(binding);
            }
            None => self.add(binding),
        }
        true
    }

    /// The binding is over.
    pub fn unbind(&mut self, binding: &ChannelBinding, cause: Cause) {
        let id = id_of(binding);
        self.changed.insert(id);
        if self.bindings.get(&id).is_none_or(|bound| bound.binding != *binding) {
            return;
        }
        let Some(bound) = self.bindings.remove(&id) else { return };
        // Another binding may have the same place before long, and is not to get this one's head start.
        self.waiting.retain(|(waiting, _)| *waiting != id);
        let [_, shared] = self.traffic(&bound);
        if let Some(ends) = ends_of(binding) {
            self.by_ends.remove(&ends);
        }
        if let Some(relayed) = bound.relayed {
            self.forget_relayed_port(relayed.port(), id);
        }
        let last = self.withdraw(bound.client_to_peer);
        let to_peer = bound.carried[0] + last;
        let to_client = match bound.peer_to_client {
            Some(direction) => bound.carried[1] + self.withdraw(direction),
            None => shared,
        };
        if let Some(other) = bound.counterpart {
            self.carry(other, Traffic::default(), last);
            self.replan(other, None);
        }
        let (binding, relayed, origin) = (bound.binding, bound.relayed, bound.origin);
        self.ended.push(EndedSession { binding, relayed, origin, cause, traffic: [to_peer, to_client] });
    }

    fn forget_relayed_port(&mut self, port: u16, id: BindingId) {
        let Some(ids) = self.by_relayed_port.get_mut(&port) else { return };
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            self.by_relayed_port.remove(&port);
        }
    }

    /// A socket with this local address was closed. Where it was a relay socket, its bindings are over; says which.
    pub fn socket_closed(&mut self, local: SocketAddr) -> Vec<ChannelBinding> {
        let is_of_socket = |relayed: SocketAddr| relayed.ip() == local.ip() || local.ip().is_unspecified();
        let over: Vec<_> = self
            .by_relayed_port
            .get(&local.port())
            .into_iter()
            .flatten()
            .filter_map(|id| self.bindings.get(id))
            .filter(|bound| bound.relayed.is_some_and(is_of_socket))
            .map(|bound| bound.binding)
            .collect();
        for binding in &over {
            self.unbind(binding, Cause::SocketClosed);
        }
        over
    }

    fn add(&mut self, binding: ChannelBinding) {
        let relayed = binding.relayed.map(|advertised| {
            let wire_address = self.wire_addresses.get(&advertised.ip()).copied();
            SocketAddr::new(wire_address.unwrap_or(advertised.ip()), advertised.port())
        });
        let bound = BoundFlows {
            binding,
            relayed,
            counterpart: None,
            client_to_peer: Direction::to_peer(&binding),
            peer_to_client: relayed.map(|relayed| Direction::from_peer(&binding, relayed)),
            origin: Origin::now(),
            carried: [Traffic::default(); 2],
            is_paused: false,
        };
        self.place(bound);
    }

    fn place(&mut self, bound: BoundFlows) {
        let BoundFlows { binding, relayed, .. } = bound;
        let id = id_of(&binding);
        self.changed.insert(id);
        self.bindings.insert(id, bound);
        if let Some(relayed) = relayed {
            self.by_relayed_port.entry(relayed.port()).or_default().push(id);
        }

        let Some((relayed, peer)) = ends_of(&binding) else { return };
        self.by_ends.insert((relayed, peer), id);
        if let Some(other) = self.by_ends.get(&(peer, relayed)).copied().filter(|other| *other != id) {
            self.replan(id, Some(other));
            self.replan(other, Some(id));
        }
    }

    /// Gives a binding other flows: those to and from its peer, or the one to the client that is its counterpart.
    fn replan(&mut self, id: BindingId, counterpart: Option<BindingId>) {
        let other =
            counterpart.and_then(|counterpart| self.bindings.get(&counterpart)).map(|other| other.binding);
        let Some(bound) = self.bindings.get_mut(&id) else { return };
        let (binding, relayed) = (bound.binding, bound.relayed);
        let (to_peer, from_peer) = match other {
            Some(other) => (Direction::to_client(&binding, &other), None),
            None => {
                (Direction::to_peer(&binding), relayed.map(|relayed| Direction::from_peer(&binding, relayed)))
            }
        };
        bound.counterpart = counterpart;
        let withdrawn = std::mem::replace(&mut bound.client_to_peer, to_peer);
        let also_withdrawn = std::mem::replace(&mut bound.peer_to_client, from_peer);
        let to_peer = self.withdraw(withdrawn);
        let to_client = also_withdrawn.map(|direction| self.withdraw(direction)).unwrap_or_default();
        self.carry(id, to_peer, to_client);
        self.install_all(id, None);
    }

    /// Installs what had to wait because of entries that were removed. To be called after every change, or after many of
    /// them: it waits for a grace period once.
    pub fn install_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        self.settle();
        for (id, head_start) in std::mem::take(&mut self.waiting) {
            self.install_all(id, head_start);
        }
    }

    fn settle(&mut self) {
        if std::mem::take(&mut self.is_unsettled) {
            self.maps.settle();
        }
    }

    /// Installs what is not installed, or has it wait.
    fn install_all(&mut self, id: BindingId, head_start: Option<HeadStart>) {
        if self.is_unsettled {
            self.waiting.push((id, head_start));
            return;
        }
        let Some(bound) = self.bindings.get(&id) else { return };
        let BoundFlows { binding, relayed, counterpart, .. } = *bound;
        let FiveTuple { client, server } = binding.five_tuple;
        let other =
            counterpart.and_then(|counterpart| self.bindings.get(&counterpart)).map(|other| other.binding);
        // A pair's way is from client to client, and no head start is made for that.
        let start =
            |of: fn(HeadStart) -> Flow| head_start.filter(|_| other.is_none()).map(of).unwrap_or_default();
        let outward = match other {
            Some(other) => {
                let FiveTuple { client, server } = other.five_tuple;
                self.flow_between(server, client, other.channel, Flow::default())
            }
            // Where the relayed transport address is not known, the witness brings it.
            None => self.flow_between(
                relayed.unwrap_or(unspecified_like(binding.peer)),
                binding.peer,
                0,
                start(|head_start| head_start.client_to_peer),
            ),
        };
        let inward =
            self.flow_between(server, client, binding.channel, start(|head_start| head_start.peer_to_client));

        let is_paused = self.is_paused(id);
        let Some(mut bound) = self.bindings.remove(&id) else { return };
        self.install(&mut bound.client_to_peer, &outward, id, is_paused);
        if let Some(direction) = &mut bound.peer_to_client {
            self.install(direction, &inward, id, is_paused);
        }
        self.bindings.insert(id, bound);
    }

    fn flow_between(&self, source: SocketAddr, destination: SocketAddr, channel: u16, start: Flow) -> Flow {
        Flow {
            out_source: source.ip().into(),
            out_destination: destination.ip().into(),
            out_source_port: Be16::new(source.port()),
            out_destination_port: Be16::new(destination.port()),
            out_channel: Be16::new(channel),
            // Keyed, so that flow labels and identifications cannot be guessed from outside (RFC 6437 section 3).
            label: self.labels.hash_one((source, destination)) as u32,
            ..start
        }
    }

    fn install(&mut self, direction: &mut Direction, flow: &Flow, id: BindingId, is_paused: bool) {
        if direction.is_installed {
            return;
        }
        let inserted = match self.claim(&direction.key, flow) {
            Claim::Adopted => Ok(()),
            // It is taken out when all are claimed, and this one is tried again.
            Claim::OfAnother => return,
            Claim::None => self.maps.insert_flow(&direction.key, flow),
        };
        direction.obstacle = match inserted {
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
        direction.is_installed = true;
        if is_paused {
            direction.obstacle = Some(Obstacle::Paused);
            self.paused.insert(direction.key);
        }
        self.owners.insert(direction.key, id);
        for output in &direction.outputs {
            self.expecting.entry(*output).or_default().push(direction.key);
            self.expect(output);
        }
    }

    /// Takes a flow out of the map; says what it carried.
    fn withdraw(&mut self, mut direction: Direction) -> Traffic {
        if !direction.is_installed {
            return Traffic::default();
        }
        for output in &direction.outputs {
            if let Some(flows) = self.expecting.get_mut(output) {
                flows.retain(|key| *key != direction.key);
            }
            self.expect(output);
        }
        if let Some(flow) = self.maps.flow(&direction.key) {
            let course = accounting::count(&mut self.totals, &mut direction, &flow);
            *self.retired.entry(course).or_default() += Traffic::from(&flow);
            self.changed_totals.insert(course);
        }
        self.maps.remove_flow(&direction.key);
        self.owners.remove(&direction.key);
        self.paused.remove(&direction.key);
        self.is_unsettled = true;
        direction.counted
    }

    /// Brings the map in line with who expects an output: an output that two flows expect proves neither.
    fn expect(&mut self, output: &FlowKey) {
        if self.unclaimed.is_some() {
            return;
        }
        match self.expecting.get(output).map(Vec::as_slice) {
            Some([only]) if !self.paused.contains(only) => {
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
}

fn id_of(binding: &ChannelBinding) -> BindingId {
    (binding.five_tuple, binding.channel)
}

fn ends_of(binding: &ChannelBinding) -> Option<(SocketAddr, SocketAddr)> {
    binding.relayed.map(|relayed| (relayed, binding.peer))
}

/// No address and no port, of the other's family.
pub fn unspecified_like(other: SocketAddr) -> SocketAddr {
    let ip =
        if other.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(ip, 0)
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
