//! What the daemon tells about itself.

use std::cell::RefCell;
use std::rc::Rc;

use turn_datapath::{Flow, Reason};

use super::{Daemon, nanoseconds, now};
use crate::control::document::{
    Channel, DirectionCounts, FlowCounts, InterfaceRow, PacketCounts, SessionRow, SessionsDocument, State,
    StatusDocument,
};
use crate::control::server::Source;
use crate::flow_table::{self, BoundFlows, Direction, Obstacle};

/// What the control socket tells.
pub(super) struct Documents(pub(super) Rc<RefCell<Daemon>>);

impl Source for Documents {
    fn status(&self) -> StatusDocument {
        let daemon = self.0.borrow();
        let now = nanoseconds(now());
        let sum = |wanted: fn(Reason) -> bool| {
            Reason::ALL.into_iter().filter(|reason| wanted(*reason)).map(|reason| daemon.count(reason)).sum()
        };
        let armed = daemon.table.flows().filter(|flow| flow.lease_until > now).count();
        StatusDocument {
            schema: 1,
            interfaces: daemon.attached.iter().map(InterfaceRow::from).collect(),
            allocations: daemon.snoop.allocation_count() as u64,
            bindings: daemon.table.bindings().count() as u64,
            flows: FlowCounts {
                armed: armed as u64,
                total: daemon.table.flow_count() as u64,
                max: u64::from(daemon.max_flows),
            },
            packets: PacketCounts {
                kernel: sum(Reason::is_relayed),
                spilled: sum(Reason::is_spilled),
                passed: sum(Reason::is_passed),
            },
            reasons: Reason::ALL
                .into_iter()
                .map(|reason| (reason.label().to_owned(), daemon.count(reason)))
                .collect(),
        }
    }

    fn sessions(&self) -> SessionsDocument {
        let daemon = self.0.borrow();
        let now = nanoseconds(now());
        let mut sessions: Vec<_> = daemon.table.bindings().map(|bound| daemon.session(bound, now)).collect();
        sessions.sort_by_key(|row| (row.client, row.server, row.channel.0));
        SessionsDocument { schema: 1, sessions }
    }
}

impl Daemon {
    fn session(&self, bound: &BoundFlows, now: u64) -> SessionRow {
        let (outward, inward) = (self.table.client_to_peer(bound), self.table.peer_to_client(bound));
        let (to_peer, to_client) =
            (self.table.flow(outward), inward.and_then(|direction| self.table.flow(direction)));
        let obstacles =
            [obstacle(Some(outward), to_peer.as_ref(), now), obstacle(inward, to_client.as_ref(), now)];
        let state = match obstacles {
            [None, None] => State::Kernel,
            [Some(_), Some(_)] => State::Userspace,
            _ => State::Mixed,
        };
        let counts = |flow: Option<Flow>| {
            flow.map_or_else(DirectionCounts::default, |flow| DirectionCounts {
                kernel_packets: flow.kernel_packets,
                kernel_bytes: flow.kernel_bytes,
                spilled_packets: flow.spilled_packets,
            })
        };
        SessionRow {
            client: bound.binding.five_tuple.client,
            server: bound.binding.five_tuple.server,
            relayed: bound.relayed.unwrap_or(flow_table::unspecified_like(bound.binding.peer)),
            peer: bound.binding.peer,
            channel: Channel(bound.binding.channel),
            state,
            reason: obstacles.into_iter().flatten().next().map(str::to_owned),
            client_to_peer: counts(to_peer),
            peer_to_client: counts(to_client),
        }
    }
}

/// Why a direction is not relayed in the kernel at this moment; none where it is.
fn obstacle(direction: Option<&Direction>, flow: Option<&Flow>, now: u64) -> Option<&'static str> {
    match (direction.map(|direction| direction.obstacle), flow) {
        (None, _) => Some("relayed_address_unknown"),
        (Some(Some(Obstacle::TableFull)), _) => Some("table_full"),
        (Some(Some(Obstacle::Ambiguous)), _) => Some("ambiguous"),
        (Some(None), None) => Some("not_installed"),
        (Some(None), Some(flow)) if flow.lease_until > now => None,
        (Some(None), Some(flow)) if flow.armed > 0 => Some("lease_over"),
        (Some(None), Some(flow)) if flow.spilled_packets > 0 => Some("no_witness"),
        (Some(None), Some(_)) => Some("no_traffic"),
    }
}
