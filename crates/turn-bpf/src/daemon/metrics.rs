//! What the daemon counts, for the metrics.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::time::SystemTime;

use turn_datapath::Reason;

use super::{Daemon, nanoseconds};
use crate::control::document::State;
use crate::flow_table::{Cause, Course, Traffic};
use crate::metrics::{Format, Labels, Snapshot, Value};
use crate::session_reason::SessionReason;

/// As many bindings as are looked at before other tasks get their turn.
const BATCH: usize = 512;

/// What came out of the ring buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    pub(super) requests: u64,
    pub(super) responses: u64,
    pub(super) armed: u64,
    pub(super) lapsed: u64,
    pub(super) path_changed: u64,
    /// Whether the log has said that something like a server is at a port where none is looked for.
    pub(super) is_other_port_logged: bool,
}

/// All metrics, as of now.
pub(super) async fn metrics(state: &Rc<RefCell<Daemon>>, format: Format) -> String {
    let (ids, now) = (state.borrow().table.ids(), nanoseconds(state.borrow().clock.now()));
    let mut armed = 0;
    for batch in ids.chunks(BATCH) {
        armed += state.borrow_mut().table.sample(batch, now);
        tokio::task::yield_now().await;
    }
    let daemon = state.borrow();
    daemon.snapshot(armed, now).encode(&daemon.histograms, format)
}

impl Daemon {
    fn snapshot(&self, armed: u64, now: u64) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let one = |value: u64| [(Labels::new(), Value::Whole(value))];
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        snapshot.gauge(
            "turnbpf_build_info",
            "Always 1; the label says what runs",
            [(version, Value::Whole(1))],
        );
        let attached = self.attached.iter().map(|one| {
            let labels = vec![("interface", one.name.clone()), ("mode", one.ingress.mode.to_string())];
            (labels, Value::Whole(1))
        });
        snapshot.gauge("turnbpf_attached", "Interfaces that turn-bpf is attached to", attached);
        self.traffic(&mut snapshot);
        self.sessions_now(&mut snapshot, now);
        let allocations = self.snoop.allocation_count() as u64;
        snapshot.gauge(
            "turnbpf_allocations",
            "Allocations that the server is known to have given",
            one(allocations),
        );
        snapshot.gauge("turnbpf_flows_armed", "Flows that are relayed in the kernel", one(armed));
        self.reasons(&mut snapshot);
        self.handshakes(&mut snapshot);
        self.maps(&mut snapshot);
        process(&mut snapshot, self.started);
        snapshot
    }

    fn traffic(&self, snapshot: &mut Snapshot) {
        let mut totals = BTreeMap::<(&str, Course), Traffic>::new();
        // So that a graph begins at zero.
        for attached in &self.attached {
            for course in [Course::ClientToPeer, Course::PeerToClient] {
                totals.entry((&attached.name, course)).or_default();
            }
        }
        for ((ifindex, course), traffic) in self.table.totals() {
            let name = self.interface_names.get(&ifindex).map_or("unknown", String::as_str);
            *totals.entry((name, course)).or_default() += traffic;
        }
        let samples = |kernel: fn(&Traffic) -> u64, spilled: fn(&Traffic) -> u64| {
            let both = totals.iter().flat_map(move |((interface, course), traffic)| {
                [("kernel", kernel(traffic)), ("userspace", spilled(traffic))].map(|(path, count)| {
                    let labels = vec![
                        ("interface", (*interface).to_owned()),
                        ("direction", course.as_str().to_owned()),
                        ("path", path.to_owned()),
                    ];
                    (labels, count)
                })
            });
            both.collect::<Vec<_>>()
        };
        snapshot.counter(
            "turnbpf_packets",
            "Packets of known flows, by the interface that they came by",
            samples(|traffic| traffic.kernel_packets, |traffic| traffic.spilled_packets),
        );
        snapshot.counter(
            "turnbpf_bytes",
            "Application data of known flows, by the interface that it came by",
            samples(|traffic| traffic.kernel_bytes, |traffic| traffic.spilled_bytes),
        );
    }

    fn sessions_now(&self, snapshot: &mut Snapshot, now: u64) {
        let counts = self.sessions_by_reason(now);
        let others = [State::Mixed, State::Userspace];
        let possible = others
            .into_iter()
            .flat_map(|state| SessionReason::ALL.iter().map(move |reason| (state, Some(*reason))));
        let samples = std::iter::once((State::Kernel, None)).chain(possible).map(|(state, reason)| {
            let count = counts.get(&(state, reason)).copied().unwrap_or_default();
            let reason = reason.map(SessionReason::label).unwrap_or_default();
            (vec![("state", state.to_string()), ("reason", reason.to_owned())], Value::Whole(count))
        });
        snapshot.gauge(
            "turnbpf_sessions",
            "Channel bindings, by who relays them and why that is not the kernel",
            samples.collect::<Vec<_>>(),
        );
    }

    fn reasons(&self, snapshot: &mut Snapshot) {
        let counted = |wanted: fn(Reason) -> bool| {
            let reasons = Reason::ALL.into_iter().filter(move |reason| wanted(*reason));
            reasons
                .map(|reason| (vec![("reason", reason.label().to_owned())], self.count(reason)))
                .collect::<Vec<_>>()
        };
        let is_passed = |reason: Reason| reason.is_spilled() || reason.is_passed();
        snapshot.counter(
            "turnbpf_pass",
            "Packets that came in and went on to the server or the host, by reason",
            counted(is_passed),
        );
        let leaves = |reason: Reason| {
            let comes = reason.is_relayed() || reason.is_spilled() || reason.is_passed();
            !comes && !matches!(reason, Reason::TransmitFailed | Reason::ControlLost | Reason::UnseenTag)
        };
        snapshot.counter(
            "turnbpf_egress",
            "Datagrams that this host sent, by what they were taken for",
            counted(leaves),
        );
        let one = |reason| [(Labels::new(), self.count(reason))];
        snapshot.counter(
            "turnbpf_transmit_failures",
            "Packets relayed in the kernel that a driver threw away",
            one(Reason::TransmitFailed),
        );
        snapshot.counter(
            "turnbpf_unseen_tags",
            "Packets of known flows with a VLAN tag that generic mode does not see",
            one(Reason::UnseenTag),
        );
        snapshot.counter(
            "turnbpf_control_lost",
            "Control messages that found the ring buffer full",
            one(Reason::ControlLost),
        );
    }

    fn handshakes(&self, snapshot: &mut Snapshot) {
        let Heard { requests, responses, armed, lapsed, path_changed, .. } = self.heard;
        let of = |label: &'static str, rows: &[(&str, u64)]| {
            rows.iter().map(|(value, count)| (vec![(label, (*value).to_owned())], *count)).collect::<Vec<_>>()
        };
        snapshot.counter(
            "turnbpf_control_messages",
            "Control messages that were looked at",
            of("class", &[("request", requests), ("response", responses)]),
        );
        snapshot.counter(
            "turnbpf_lease_changes",
            "Flows that got a lease or lost it",
            of("event", &[("armed", armed), ("lapsed", lapsed), ("path_changed", path_changed)]),
        );
        let refusals: Vec<_> =
            self.snoop.refusals().map(|(refusal, count)| (refusal.as_str(), count)).collect();
        snapshot.counter(
            "turnbpf_refusals",
            "Messages, or parts of them, that were not learned from",
            of("reason", &refusals),
        );
        let revocations: Vec<_> = Cause::all()
            .map(|cause| (cause.as_str(), self.revocations.get(cause.as_str()).copied().unwrap_or_default()))
            .collect();
        snapshot.counter("turnbpf_revocations", "Sessions that ended, by reason", of("reason", &revocations));
    }

    fn maps(&self, snapshot: &mut Snapshot) {
        let maps = [
            ("flows", self.table.flow_count() as u64, u64::from(self.max_flows)),
            ("expected", self.table.expected_count() as u64, u64::from(self.max_flows + self.max_flows / 2)),
        ];
        let label = |map: &str| vec![("map", map.to_owned())];
        let entries = maps.map(|(map, entries, _)| (label(map), Value::Whole(entries)));
        snapshot.gauge("turnbpf_map_entries", "Entries in turn-bpf's maps", entries);
        let room = maps.map(|(map, _, most)| (label(map), Value::Whole(most)));
        snapshot.gauge("turnbpf_map_max_entries", "Room in turn-bpf's maps", room);
    }
}

/// What client libraries of Prometheus tell of a process, by the same names.
fn process(snapshot: &mut Snapshot, started: SystemTime) {
    let one = |value| [(Labels::new(), value)];
    let start = started.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    snapshot.gauge("process_start_time_seconds", "When turn-bpf was started", one(Value::Real(start)));
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_seconds(&stat)) {
        snapshot.seconds("process_cpu_seconds", "Processor time that turn-bpf's process has used", seconds);
    }
    if let Some(pages) = fs::read_to_string("/proc/self/statm").ok().and_then(|statm| resident_pages(&statm))
    {
        let bytes = pages.saturating_mul(rustix::param::page_size() as u64);
        snapshot.gauge(
            "process_resident_memory_bytes",
            "Memory of turn-bpf's process",
            one(Value::Whole(bytes)),
        );
    }
}

/// proc_pid_stat(5): the 14th and 15th field. The name, in parentheses, may contain anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    let ticks = times.next()?? + times.next()??;
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// proc_pid_statm(5): the second field.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split(' ').nth(1)?.parse().ok()
}
