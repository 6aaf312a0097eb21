//! Sessions that an operator wants to go through the server.
//!
//! Their flows stay in the map, so that their packets are counted, but nothing proves them, so that they never get a lease.

use std::collections::HashSet;

use turn_snoop::ChannelBinding;

use super::{BindingId, BoundFlows, Direction, FlowMaps, FlowTable, Traffic, id_of};

impl<M: FlowMaps> FlowTable<M> {
    /// As [`bind`](Self::bind), for a binding that is to go through the server.
    pub fn bind_paused(&mut self, binding: ChannelBinding) -> bool {
        let is_new = self.add_unless_known(binding);
        if is_new && let Some(bound) = self.bindings.get_mut(&id_of(&binding)) {
            bound.is_paused = true;
        }
        self.install_all(id_of(&binding), None);
        is_new
    }

    /// Has the bindings that are wanted go through the server, and all others not.
    pub fn pause(&mut self, is_wanted: impl Fn(&BoundFlows) -> bool) -> Vec<ChannelBinding> {
        let mut changed = Vec::new();
        for (id, bound) in &mut self.bindings {
            let is_paused = is_wanted(bound);
            if std::mem::replace(&mut bound.is_paused, is_paused) != is_paused {
                changed.push(*id);
                self.changed.insert(*id);
            }
        }
        let counterparts = changed.iter().filter_map(|id| self.bindings.get(id)?.counterpart);
        let affected: HashSet<BindingId> = changed.iter().copied().chain(counterparts).collect();
        // First all that goes, then all that comes, so that it is waited only once between the two.
        for id in &affected {
            self.start_anew(*id);
        }
        for id in affected {
            self.install_all(id, None);
        }
        self.install_waiting();
        changed.iter().filter_map(|id| self.bindings.get(id)).map(|bound| bound.binding).collect()
    }

    /// Takes a binding's flows out of the map, and makes ready to install them again without a lease.
    fn start_anew(&mut self, id: BindingId) {
        let Some(bound) = self.bindings.get_mut(&id) else { return };
        let counterpart = bound.counterpart;
        let outward = bound.client_to_peer.anew();
        let outward = std::mem::replace(&mut bound.client_to_peer, outward);
        let inward = bound.peer_to_client.as_ref().map(Direction::anew);
        let inward = std::mem::replace(&mut bound.peer_to_client, inward);
        let to_peer = self.withdraw(outward);
        let to_client = inward.map(|direction| self.withdraw(direction)).unwrap_or_default();
        self.carry(id, to_peer, to_client);
        if let Some(counterpart) = counterpart {
            self.carry(counterpart, Traffic::default(), to_peer);
        }
    }

    /// Two clients that have bound each other share their flows.
    pub(super) fn is_paused(&self, id: BindingId) -> bool {
        let Some(bound) = self.bindings.get(&id) else { return false };
        let other = bound.counterpart.and_then(|other| self.bindings.get(&other));
        bound.is_paused || other.is_some_and(|other| other.is_paused)
    }
}
