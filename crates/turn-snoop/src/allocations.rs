use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::SocketAddr;
use std::time::Duration;

use turn_wire::stun::AddressFamily;

use crate::deadlines::Deadlines;
use crate::{Allocation, FiveTuple};

/// The live allocations, and who owns which address.
#[derive(Debug)]
pub(crate) struct Allocations {
    by_five_tuple: HashMap<FiveTuple, Allocation>,
    owners: HashMap<SocketAddr, Owners>,
    relayed_ports: Multiset<u16>,
    listeners: Multiset<SocketAddr>,
    deadlines: Deadlines<FiveTuple>,
    /// Those of which something has changed since it was asked last.
    changed: HashSet<FiveTuple>,
}

/// The allocations that have a relayed transport address: one (RFC 8656 section 6), several where a server tells them apart by their
/// peers, and those of which nobody has said yet that they are over.
#[derive(Debug, Default)]
struct Owners {
    five_tuples: Vec<FiveTuple>,
    /// Whether an older one was seen alive after a newer one was made.
    is_shared: bool,
}

impl Allocations {
    pub(crate) fn new() -> Self {
        Self {
            by_five_tuple: HashMap::new(),
            owners: HashMap::new(),
            relayed_ports: Multiset::new(),
            listeners: Multiset::new(),
            deadlines: Deadlines::new(),
            changed: HashSet::new(),
        }
    }

    pub(crate) fn take_changed(&mut self) -> HashSet<FiveTuple> {
        std::mem::take(&mut self.changed)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_five_tuple.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Allocation> {
        self.by_five_tuple.values()
    }

    pub(crate) fn of(&self, five_tuple: FiveTuple) -> Option<&Allocation> {
        self.by_five_tuple.get(&five_tuple)
    }

    /// For anything but what the indexes of this table are about: addresses and deadlines.
    pub(crate) fn of_mut(&mut self, five_tuple: FiveTuple) -> Option<&mut Allocation> {
        let allocation = self.by_five_tuple.get_mut(&five_tuple)?;
        self.changed.insert(five_tuple);
        Some(allocation)
    }

    /// The allocations that have this relayed transport address, in the order in which they were made.
    pub(crate) fn owners(&self, relayed: SocketAddr) -> &[FiveTuple] {
        self.owners.get(&relayed).map_or(&[], |owners| &owners.five_tuples)
    }

    /// Whether the server is known to give this relayed transport address to several allocations at a time.
    pub(crate) fn is_shared(&self, relayed: SocketAddr) -> bool {
        self.owners.get(&relayed).is_some_and(|owners| owners.is_shared)
    }

    /// The server has shown that the allocation is there. Where a newer one has its address, they share it.
    pub(crate) fn seen_alive(&mut self, five_tuple: FiveTuple) {
        let Some(allocation) = self.by_five_tuple.get(&five_tuple) else { return };
        for relayed in allocation.relayed() {
            if let Some(owners) = self.owners.get_mut(&relayed)
                && owners.five_tuples.last() != Some(&five_tuple)
            {
                owners.is_shared = true;
            }
        }
    }

    /// Whether a server has made a live allocation from this address.
    pub(crate) fn is_listener(&self, address: SocketAddr) -> bool {
        self.listeners.contains(&address)
    }

    /// Whether a live relayed transport address has this port.
    ///
    /// The port alone, since behind address translation the advertised address is not the one on the wire.
    pub(crate) fn is_relayed_port(&self, port: u16) -> bool {
        self.relayed_ports.contains(&port)
    }

    /// Adds an allocation whose 5-tuple is nobody's.
    pub(crate) fn insert(&mut self, allocation: Allocation) {
        let five_tuple = allocation.five_tuple();
        for relayed in allocation.relayed() {
            self.owners.entry(relayed).or_default().five_tuples.push(five_tuple);
            self.relayed_ports.insert(relayed.port());
        }
        self.listeners.insert(five_tuple.server);
        self.deadlines.insert(allocation.deadline(), five_tuple);
        self.by_five_tuple.insert(five_tuple, allocation);
        self.changed.insert(five_tuple);
    }

    /// The relayed transport address has shown that an adopted allocation has of this family.
    pub(crate) fn set_relayed(&mut self, five_tuple: FiveTuple, relayed: SocketAddr) {
        let Some(allocation) = self.by_five_tuple.get_mut(&five_tuple) else { return };
        allocation.set_relayed(relayed);
        self.changed.insert(five_tuple);
        self.owners.entry(relayed).or_default().five_tuples.push(five_tuple);
        self.relayed_ports.insert(relayed.port());
    }

    pub(crate) fn remove(&mut self, five_tuple: FiveTuple) -> Option<Allocation> {
        let allocation = self.by_five_tuple.remove(&five_tuple)?;
        self.changed.insert(five_tuple);
        for relayed in allocation.relayed() {
            self.release(relayed, five_tuple);
        }
        self.listeners.remove(five_tuple.server);
        self.deadlines.remove(allocation.deadline(), five_tuple);
        Some(allocation)
    }

    /// Takes one of two relayed transport addresses from the allocation.
    pub(crate) fn remove_relayed(&mut self, five_tuple: FiveTuple, family: AddressFamily) {
        let Some(allocation) = self.by_five_tuple.get_mut(&five_tuple) else { return };
        let before = allocation.deadline();
        let relayed = allocation.remove_relayed(family);
        self.changed.insert(five_tuple);
        let after = allocation.deadline();
        self.deadlines.remove(before, five_tuple);
        self.deadlines.insert(after, five_tuple);
        if let Some(relayed) = relayed {
            self.release(relayed, five_tuple);
        }
    }

    pub(crate) fn set_deadline(
        &mut self,
        five_tuple: FiveTuple,
        family: Option<AddressFamily>,
        deadline: impl Fn(Duration) -> Duration,
    ) {
        let Some(allocation) = self.by_five_tuple.get_mut(&five_tuple) else { return };
        self.deadlines.remove(allocation.deadline(), five_tuple);
        allocation.set_deadline(family, deadline);
        self.changed.insert(five_tuple);
        self.deadlines.insert(allocation.deadline(), five_tuple);
    }

    pub(crate) fn first_deadline(&self) -> Option<Duration> {
        self.deadlines.first()
    }

    pub(crate) fn due(&self, now: Duration) -> Option<FiveTuple> {
        self.deadlines.due(now)
    }

    fn release(&mut self, relayed: SocketAddr, five_tuple: FiveTuple) {
        if let Entry::Occupied(mut entry) = self.owners.entry(relayed) {
            entry.get_mut().five_tuples.retain(|owner| *owner != five_tuple);
            if entry.get().five_tuples.is_empty() {
                entry.remove();
            }
        }
        self.relayed_ports.remove(relayed.port());
    }
}

#[derive(Debug)]
struct Multiset<T>(HashMap<T, usize>);

impl<T: Eq + Hash> Multiset<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn contains(&self, item: &T) -> bool {
        self.0.contains_key(item)
    }

    fn insert(&mut self, item: T) {
        *self.0.entry(item).or_default() += 1;
    }

    fn remove(&mut self, item: T) {
        if let Entry::Occupied(mut entry) = self.0.entry(item) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
