//! What one table leaves to the next, together with the entries of the maps.

use std::collections::HashSet;
use std::net::SocketAddr;

use turn_datapath::{Flow, FlowKey};
use turn_snoop::ChannelBinding;
use turn_wire::Be16;

use super::{BindingId, BoundFlows, Course, Direction, FlowMaps, FlowTable, Origin, Traffic, id_of};

/// What is known of a binding besides its flows in the map.
#[derive(Clone, Debug)]
pub struct KeptSession {
    /// The binding.
    pub binding: ChannelBinding,
    /// The relayed transport address on the wire, as far as it is known.
    pub relayed: Option<SocketAddr>,
    /// Where it comes from.
    pub origin: Origin,
    /// What flows carried that are no longer in the map: to the peer, to the client.
    pub carried: [Traffic; 2],
}

/// What is in the maps.
#[derive(Clone, Debug, Default)]
pub struct Entries {
    /// Keys of flows.
    pub flows: Vec<FlowKey>,
    /// Expected outputs.
    pub outputs: Vec<FlowKey>,
}

/// Whether a flow that is to be installed is there.
pub(super) enum Claim {
    /// It is, with its lease and its counters.
    Adopted,
    /// One is that leads elsewhere.
    OfAnother,
    None,
}

impl<M: FlowMaps> FlowTable<M> {
    /// Goes on with what an earlier table knew, whose entries are in the maps and in use. The flows of these sessions stay as they are. What
    /// is missing is installed without a lease, and what belongs to nobody is taken out. For a table that knows nothing yet.
    ///
    /// Where two have the same flow, it is that of the first.
    pub fn adopt(&mut self, sessions: Vec<KeptSession>, entries: Entries) {
        // Entries that the earlier table removed last.
        self.maps.settle();
        self.unclaimed = Some(entries.flows.into_iter().collect());
        let ids: Vec<BindingId> = sessions.iter().map(|session| id_of(&session.binding)).collect();
        for session in sessions {
            let KeptSession { binding, relayed, origin, carried } = session;
            if let (Some(advertised), Some(relayed)) = (binding.relayed, relayed) {
                self.wire_addresses.insert(advertised.ip(), relayed.ip());
            }
            self.place(BoundFlows {
                binding,
                relayed,
                counterpart: None,
                client_to_peer: Direction::to_peer(&binding),
                peer_to_client: relayed.map(|relayed| Direction::from_peer(&binding, relayed)),
                origin,
                carried,
                is_paused: false,
            });
        }
        for id in &ids {
            self.install_all(*id, None);
        }
        for nobodys in self.unclaimed.take().unwrap_or_default() {
            self.maps.remove_flow(&nobodys);
            self.is_unsettled = true;
        }
        for output in entries.outputs {
            if !self.expecting.contains_key(&output) {
                self.maps.remove_expected(&output);
            }
        }
        for output in self.expecting.keys().copied().collect::<Vec<_>>() {
            self.expect(&output);
        }
        for id in ids {
            self.install_all(id, None);
        }
        self.install_waiting();
    }

    /// What flows carried that are gone, by the interface that the packets came by and by course, for the next table.
    pub fn set_retired(&mut self, retired: impl IntoIterator<Item = ((u32, Course), Traffic)>) {
        self.retired = retired.into_iter().collect();
        self.totals.clone_from(&self.retired);
    }

    /// The parts of that which have changed since the last call.
    pub fn take_changed_totals(&mut self) -> Vec<((u32, Course), Traffic)> {
        let changed = std::mem::take(&mut self.changed_totals);
        changed.into_iter().filter_map(|course| Some((course, *self.retired.get(&course)?))).collect()
    }

    /// The bindings that have come, gone or changed since the last call.
    pub fn take_changed(&mut self) -> HashSet<BindingId> {
        std::mem::take(&mut self.changed)
    }

    /// What there is to be kept of a binding.
    pub fn kept(&self, id: BindingId) -> Option<KeptSession> {
        let BoundFlows { binding, relayed, origin, carried, .. } = self.bindings.get(&id)?;
        Some(KeptSession { binding: *binding, relayed: *relayed, origin: origin.clone(), carried: *carried })
    }

    pub(super) fn claim(&mut self, key: &FlowKey, wanted: &Flow) -> Claim {
        if self.unclaimed.as_ref().is_none_or(|unclaimed| !unclaimed.contains(key)) {
            return Claim::None;
        }
        match self.maps.flow(key) {
            Some(found) if leads_alike(&found, wanted) => {
                self.unclaimed.as_mut().map(|unclaimed| unclaimed.remove(key));
                Claim::Adopted
            }
            Some(_) => Claim::OfAnother,
            None => Claim::None,
        }
    }
}

/// The source of what goes to a peer is the witness's to say.
fn leads_alike(found: &Flow, wanted: &Flow) -> bool {
    let to_client = wanted.out_channel != Be16::new(0);
    let source = |flow: &Flow| to_client.then_some((flow.out_source, flow.out_source_port));
    let destination = |flow: &Flow| (flow.out_destination, flow.out_destination_port, flow.out_channel);
    destination(found) == destination(wanted) && source(found) == source(wanted)
}
