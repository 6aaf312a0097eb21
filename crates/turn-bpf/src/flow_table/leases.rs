//! Leases, which the kernel grants: what they show, and when they are taken away.

use std::net::SocketAddr;

use turn_datapath::{Flow, FlowKey};

use super::{Direction, FlowMaps, FlowTable, Traffic};

impl<M: FlowMaps> FlowTable<M> {
    /// Takes the lease from flows whose path is no longer good. They keep their counters, and their next witness brings
    /// the new path. Returns how many there were.
    pub fn disarm(&mut self, is_outdated: impl Fn(&Flow) -> bool) -> usize {
        let outdated: Vec<(FlowKey, Flow)> = self
            .owners
            .keys()
            .filter_map(|key| self.maps.flow(key).map(|flow| (*key, flow)))
            .filter(|(_, flow)| flow.lease_until != 0 && is_outdated(flow))
            .collect();
        for (key, _) in &outdated {
            self.maps.remove_flow(key);
            self.is_unsettled = true;
        }
        self.settle();
        for (key, flow) in &outdated {
            let disarmed = Flow { lease_until: 0, noted_until: 0, ..*flow };
            if let Err(error) = self.maps.insert_flow(key, &disarmed) {
                tracing::error!(error = &error as &dyn std::error::Error, "a flow is left to the server");
            }
        }
        outdated.len()
    }

    /// Does again for every flow with a lease what [`FlowTable::armed`] does, since reports of that were lost.
    pub fn catch_up(&mut self) {
        let armed: Vec<_> = self
            .owners
            .keys()
            .filter_map(|key| self.maps.flow(key).map(|flow| (*key, flow)))
            .filter(|(_, flow)| flow.lease_until != 0)
            .map(|(key, flow)| (key, SocketAddr::new(flow.out_source.into(), flow.out_source_port.value())))
            .collect();
        for (key, source) in armed {
            self.armed(&key, source);
        }
    }

    /// The server was seen sending a flow's packets from this address. Where the flow goes to a peer, the peer will
    /// answer to that address, whatever the server advertised.
    pub fn armed(&mut self, key: &FlowKey, source: SocketAddr) {
        let Some(id) = self.owners.get(key).copied() else { return };
        let Some(bound) = self.bindings.get_mut(&id) else { return };
        let is_from_relayed = bound.counterpart.is_none() && bound.client_to_peer.key == *key;
        if !is_from_relayed || bound.relayed == Some(source) {
            return;
        }
        if let Some(advertised) = bound.binding.relayed {
            self.wire_addresses.insert(advertised.ip(), source.ip());
        }
        self.changed.insert(id);
        let before = bound.relayed.replace(source).map(|relayed| relayed.port());
        let moved = Direction::from_peer(&bound.binding, source);
        let withdrawn = bound.peer_to_client.replace(moved);
        if before != Some(source.port()) {
            if let Some(before) = before {
                self.forget_relayed_port(before, id);
            }
            self.by_relayed_port.entry(source.port()).or_default().push(id);
        }
        if let Some(direction) = withdrawn {
            let last = self.withdraw(direction);
            self.carry(id, Traffic::default(), last);
        }
        self.install_all(id, None);
    }
}
