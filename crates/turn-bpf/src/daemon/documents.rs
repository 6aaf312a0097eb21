//! What the daemon tells about itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Instant, SystemTime};

use hyper::body::Bytes;
use tokio::sync::broadcast;
use turn_datapath::{Flow, Reason, rate};

use super::sessions::ends_of;
use super::{Daemon, nanoseconds};
use crate::control::document::{
    ActionDocument, ByteCounts, Channel, ControlMessageCounts, DirectionCounts, FlowCounts, InterfaceRow,
    PacketCounts, SessionCounts, SessionRow, SessionsDocument, State, StatusDocument,
};
use crate::control::selector::Selector;
use crate::control::server::{Action, Source};
use crate::flow_table::{self, BoundFlows, Direction, Obstacle, Traffic};
use crate::session_reason::SessionReason;

/// What the control socket tells.
pub(super) struct Documents(pub(super) Rc<RefCell<Daemon>>);

impl Source for Documents {
    fn status(&self) -> StatusDocument {
        let mut daemon = self.0.borrow_mut();
        let now = nanoseconds(daemon.clock.now());
        let ids = daemon.table.ids();
        let armed = daemon.table.sample(&ids, now);
        let daemon = &*daemon;
        let sum = |wanted: fn(Reason) -> bool| {
            Reason::ALL.into_iter().filter(|reason| wanted(*reason)).map(|reason| daemon.count(reason)).sum()
        };
        let traffic = daemon.table.totals().fold(Traffic::default(), |sum, (_, traffic)| sum + traffic);
        StatusDocument {
            schema: 1,
            interfaces: daemon.attached.iter().map(InterfaceRow::from).collect(),
            allocations: daemon.snoop.allocation_count() as u64,
            bindings: daemon.table.bindings().count() as u64,
            flows: FlowCounts {
                armed,
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
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: rfc3339(daemon.started),
            bytes: ByteCounts { kernel: traffic.kernel_bytes, spilled: traffic.spilled_bytes },
            sessions: daemon.session_counts(now),
            paused: daemon.pauses.clone(),
            max_rate: daemon.max_rate,
            control_messages: ControlMessageCounts {
                requests: daemon.heard.requests,
                responses: daemon.heard.responses,
            },
        }
    }

    fn sessions(&self, wanted: &Selector) -> SessionsDocument {
        let daemon = self.0.borrow();
        let (now, instant) = (nanoseconds(daemon.clock.now()), Instant::now());
        let bindings = daemon.table.bindings().filter(|bound| wanted.matches(&ends_of(bound)));
        let mut sessions: Vec<_> = bindings.map(|bound| daemon.session(bound, now, instant)).collect();
        sessions.sort_by_key(|row| (row.client, row.server, row.channel.0));
        SessionsDocument { schema: 1, sessions }
    }

    fn events(&self) -> Option<broadcast::Receiver<Bytes>> {
        self.0.borrow().listeners.subscribe()
    }

    fn act(&self, action: Action, on: &Selector) -> ActionDocument {
        self.0.borrow_mut().act(action, on)
    }
}

impl Daemon {
    /// Sessions by who relays them.
    pub(super) fn session_counts(&self, now: u64) -> SessionCounts {
        let mut counts = SessionCounts::default();
        for ((state, reason), number) in self.sessions_by_reason(now) {
            match state {
                State::Kernel => counts.kernel += number,
                State::Mixed => counts.mixed += number,
                State::Userspace => counts.userspace += number,
            }
            if let Some(reason) = reason {
                *counts.reasons.entry(reason.label().to_owned()).or_default() += number;
            }
        }
        counts
    }

    /// How many sessions there are of each state and reason.
    pub(super) fn sessions_by_reason(&self, now: u64) -> BTreeMap<(State, Option<SessionReason>), u64> {
        let mut counts = BTreeMap::new();
        for bound in self.table.bindings() {
            *counts.entry(self.state(bound, now)).or_default() += 1;
        }
        counts
    }

    /// Who relays a session, and why it is not the kernel alone.
    pub(super) fn state(&self, bound: &BoundFlows, now: u64) -> (State, Option<SessionReason>) {
        let (outward, inward) = (Some(self.table.client_to_peer(bound)), self.table.peer_to_client(bound));
        let obstacles = [outward, inward].map(|direction| {
            let flow = direction.and_then(|direction| self.table.flow(direction));
            obstacle(direction, flow.as_ref(), now)
        });
        let state = match obstacles {
            [None, None] => State::Kernel,
            [Some(_), Some(_)] => State::Userspace,
            _ => State::Mixed,
        };
        (state, obstacles.into_iter().flatten().next())
    }

    fn session(&self, bound: &BoundFlows, now: u64, instant: Instant) -> SessionRow {
        let (state, reason) = self.state(bound, now);
        let [client_to_peer, peer_to_client] = self.table.traffic(bound).map(DirectionCounts::from);
        let origin = &bound.origin;
        SessionRow {
            client: bound.binding.five_tuple.client,
            server: bound.binding.five_tuple.server,
            relayed: bound.relayed.unwrap_or(flow_table::unspecified_like(bound.binding.peer)),
            peer: bound.binding.peer,
            channel: Channel(bound.binding.channel),
            state,
            reason: reason.map(|reason| reason.label().to_owned()),
            client_to_peer,
            peer_to_client,
            explanation: reason.map(|reason| reason.explanation().to_owned()),
            started: rfc3339(origin.time),
            age_seconds: instant.saturating_duration_since(origin.instant).as_secs(),
            username: origin.user.as_ref().map(|user| user.username.clone()),
            realm: origin.user.as_ref().and_then(|user| user.realm.clone()),
        }
    }
}

impl From<Traffic> for DirectionCounts {
    fn from(traffic: Traffic) -> Self {
        Self {
            kernel_packets: traffic.kernel_packets,
            kernel_bytes: traffic.kernel_bytes,
            spilled_packets: traffic.spilled_packets,
            spilled_bytes: traffic.spilled_bytes,
        }
    }
}

/// Why a direction is not relayed in the kernel at this moment; none where it is.
fn obstacle(direction: Option<&Direction>, flow: Option<&Flow>, now: u64) -> Option<SessionReason> {
    match (direction.map(|direction| direction.obstacle), flow) {
        (None, _) => Some(SessionReason::RelayedAddressUnknown),
        (Some(Some(Obstacle::Paused)), _) => Some(SessionReason::Paused),
        (Some(Some(Obstacle::TableFull)), _) => Some(SessionReason::TableFull),
        (Some(Some(Obstacle::Ambiguous)), _) => Some(SessionReason::Ambiguous),
        (Some(None), None) => Some(SessionReason::NotInstalled),
        (Some(None), Some(flow)) if rate::is_over(flow, now) => Some(SessionReason::OverRate),
        (Some(None), Some(flow)) if flow.lease_until > now => None,
        (Some(None), Some(flow)) if flow.armed > 0 => Some(SessionReason::LeaseOver),
        (Some(None), Some(flow)) if flow.spilled_packets > 0 => Some(SessionReason::NoWitness),
        (Some(None), Some(_)) => Some(SessionReason::NoTraffic),
    }
}

/// To the second.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
