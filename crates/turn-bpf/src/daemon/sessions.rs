//! Sessions as they come and go: who hears of it, and what operators do to them.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::broadcast;
use turn_datapath::FlowKey;
use turn_snoop::{ChannelBinding, Refusal};

use super::{Daemon, SESSION_LOG};
use crate::control::document::{ActionDocument, Channel};
use crate::control::event::{Event, EventKind};
use crate::control::selector::{Ends, Selector};
use crate::control::server::{Action, line};
use crate::flow_table::{BoundFlows, Cause, EndedSession, HeadStart};

/// Events that wait for the slowest reader.
const BUFFERED_EVENTS: usize = 4096;
/// Most readers of events at a time.
const MOST_READERS: usize = 64;

/// Those who want to hear of events.
pub(super) struct Listeners(broadcast::Sender<hyper::body::Bytes>);

impl Listeners {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(BUFFERED_EVENTS))
    }

    /// None where there are too many.
    pub(super) fn subscribe(&self) -> Option<broadcast::Receiver<hyper::body::Bytes>> {
        (self.0.receiver_count() < MOST_READERS).then(|| self.0.subscribe())
    }

    /// Costs nothing where nobody listens.
    fn tell(&self, event: impl FnOnce() -> Event) {
        if self.0.receiver_count() > 0 {
            // An error says that the last one has just left.
            let _ = self.0.send(line(&event()));
        }
    }
}

impl Daemon {
    /// The server bound a channel.
    pub(super) fn bind(&mut self, binding: ChannelBinding, head_start: Option<HeadStart>) {
        let ends = ends(&binding, binding.relayed);
        let is_new = match self.pauses.iter().any(|selector| selector.matches(&ends)) {
            true => self.table.bind_paused(binding),
            false => self.table.bind(binding, head_start),
        };
        self.handle_ended();
        if self.reads_users
            && let Some(user) =
                self.snoop.allocation(binding.five_tuple).and_then(|allocation| allocation.user())
        {
            self.table.set_user(&binding, Arc::clone(user));
        }
        if is_new {
            self.listeners.tell(|| about(EventKind::Learned, &binding, binding.relayed));
        }
    }

    /// A binding is over.
    pub(super) fn unbind(&mut self, binding: &ChannelBinding, cause: Cause) {
        self.table.unbind(binding, cause);
        self.handle_ended();
    }

    /// Tells of the sessions that have ended.
    pub(super) fn handle_ended(&mut self) {
        for ended in self.table.take_ended() {
            tracing::debug!(five_tuple = %ended.binding.five_tuple, channel = ended.binding.channel,
                peer = %ended.binding.peer, revocation = %ended.cause, "unbound");
            self.listeners.tell(|| Event {
                reason: Some(ended.cause.to_string()),
                ..about(EventKind::Revoked, &ended.binding, ended.relayed)
            });
            self.account(&ended);
        }
    }

    fn account(&mut self, ended: &EndedSession) {
        *self.revocations.entry(ended.cause.as_str()).or_default() += 1;
        self.histograms.observe(ended);
        log(ended);
    }

    /// A direction got a lease, or lost it for a reason.
    pub(super) fn tell_of_lease(&self, key: &FlowKey, lost: Option<&'static str>) {
        let Some(bound) = self.table.owner(key) else { return };
        self.listeners.tell(|| {
            let kind = if lost.is_some() { EventKind::Lapsed } else { EventKind::Armed };
            let course = self.table.course(bound, key);
            Event {
                direction: Some(course.as_str().to_owned()),
                reason: lost.map(str::to_owned),
                ..about(kind, &bound.binding, bound.relayed)
            }
        });
    }

    /// A message between these was not learned from.
    pub(super) fn tell_of_refusal(&mut self, client: SocketAddr, server: SocketAddr, refusal: Refusal) {
        if refusal == Refusal::SourceIsNoListener && !self.heard.is_other_port_logged {
            self.heard.is_other_port_logged = true;
            tracing::warn!(
                address = %server,
                "a TURN server, or what a client has forged by way of one; if a server listens there, name the port: --listening-port"
            );
        }
        self.listeners.tell(|| Event {
            client: Some(client),
            server: Some(server),
            reason: Some(refusal.as_str().to_owned()),
            ..Event::now(EventKind::Refused)
        });
    }

    /// What an operator wants done.
    pub(super) fn act(&mut self, action: Action, on: &Selector) -> ActionDocument {
        tracing::info!(?action, %on, "an operator's wish");
        let sessions = match action {
            Action::Evict => {
                let bindings = self.table.bindings().filter(|bound| on.matches(&ends_of(bound)));
                let bindings: Vec<_> = bindings.map(|bound| bound.binding).collect();
                for binding in &bindings {
                    if let Some(waiting) = &mut self.eager {
                        waiting.retain(|other| other != binding);
                    }
                    self.unbind(binding, Cause::Evicted);
                }
                bindings.len()
            }
            Action::Pause => {
                if !self.pauses.iter().any(|other| other.covers(on)) {
                    self.pauses.retain(|other| !on.covers(other));
                    self.pauses.push(on.clone());
                }
                self.follow_pauses(EventKind::Paused)
            }
            Action::Resume => {
                self.pauses.retain(|other| !on.covers(other));
                self.follow_pauses(EventKind::Resumed)
            }
        };
        ActionDocument { schema: 1, sessions: sessions as u64, paused: self.pauses.clone() }
    }

    fn follow_pauses(&mut self, kind: EventKind) -> usize {
        let pauses = &self.pauses;
        let changed = self.table.pause(|bound| {
            let ends = ends_of(bound);
            pauses.iter().any(|selector| selector.matches(&ends))
        });
        for binding in &changed {
            self.listeners.tell(|| about(kind, binding, binding.relayed));
        }
        changed.len()
    }

    /// turn-bpf ends, and with it all sessions as far as it knows them.
    pub(super) fn end_all(&mut self) {
        let bindings: Vec<_> = self.table.bindings().map(|bound| bound.binding).collect();
        for binding in bindings {
            self.unbind(&binding, Cause::Stopped);
        }
    }
}

/// One line for those who bill, under a name of its own ([`SESSION_LOG`]).
fn log(EndedSession { binding, relayed, origin, cause, traffic: [to_peer, to_client] }: &EndedSession) {
    let user = origin.user.as_deref();
    tracing::info!(
        target: SESSION_LOG,
        client = %binding.five_tuple.client,
        server = %binding.five_tuple.server,
        relayed = relayed.map(tracing::field::display),
        peer = %binding.peer,
        channel = %Channel(binding.channel),
        // These are for others to choose, so they are written as texts, in which nothing ends a line.
        username = user.map(|user| user.username.as_str()),
        realm = user.and_then(|user| user.realm.as_deref()),
        started = %humantime::format_rfc3339_millis(origin.time),
        duration_seconds = origin.instant.elapsed().as_secs_f64(),
        reason = %cause,
        client_to_peer_kernel_packets = to_peer.kernel_packets,
        client_to_peer_kernel_bytes = to_peer.kernel_bytes,
        client_to_peer_spilled_packets = to_peer.spilled_packets,
        client_to_peer_spilled_bytes = to_peer.spilled_bytes,
        peer_to_client_kernel_packets = to_client.kernel_packets,
        peer_to_client_kernel_bytes = to_client.kernel_bytes,
        peer_to_client_spilled_packets = to_client.spilled_packets,
        peer_to_client_spilled_bytes = to_client.spilled_bytes,
        "session ended"
    );
}

/// What a session is found by.
pub(super) fn ends_of(bound: &BoundFlows) -> Ends {
    ends(&bound.binding, bound.relayed)
}

fn ends(binding: &ChannelBinding, relayed: Option<SocketAddr>) -> Ends {
    Ends { client: binding.five_tuple.client, peer: binding.peer, relayed, channel: Channel(binding.channel) }
}

fn about(kind: EventKind, binding: &ChannelBinding, relayed: Option<SocketAddr>) -> Event {
    Event {
        client: Some(binding.five_tuple.client),
        server: Some(binding.five_tuple.server),
        relayed,
        peer: Some(binding.peer),
        channel: Some(Channel(binding.channel)),
        ..Event::now(kind)
    }
}
