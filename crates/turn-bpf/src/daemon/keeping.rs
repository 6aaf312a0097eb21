//! What stays in the kernel from one daemon to the next (`--keep`): what this one finds at its start, writes down as it goes, and leaves.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use aya::maps::{MapData, MapError, RingBuf};
use turn_datapath::kept::{
    Endpoint, KeptAllocation, KeptBinding, KeptCourse, KeptTraffic, KeptUser, allocation_flags, binding_flags,
};
use turn_datapath::{FlowKey, Reason};
use turn_snoop::{AllocationMemory, BindingMemory, ChannelBinding, FiveTuple, RelayedMemory, User};
use turn_wire::Be16;

use super::{Daemon, Options, addresses, give_head_starts, nanoseconds};
use crate::flow_table::{BindingId, Course, KeptSession, Origin, Traffic, key_of};
use crate::object::Plain;
use crate::pins::{PinError, Pins};
use crate::{layout, sockets};

/// For how long a daemon that is told to stop waits for answers of the server to requests that it has heard.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// For how long what stays in the kernel grants leases without a daemon: long enough for a system's upgrade.
const UNATTENDED: Duration = Duration::from_secs(600);

/// Where something is to be kept, or was kept by an earlier daemon.
pub(super) fn open(options: &Options) -> Result<Option<Pins>, PinError> {
    let layout = layout::name(options.max_flows);
    match options.keeps {
        true => Pins::create(&options.pin_dir, layout).map(Some),
        false => Pins::find(&options.pin_dir, layout),
    }
}

/// After everything is attached: removes what is in the way, and hears what was said while there was no daemon.
pub(super) async fn catch_up(state: &RefCell<Daemon>, ring: &mut RingBuf<MapData>) {
    if state.borrow().pins.is_none() {
        return;
    }
    state.borrow_mut().remove_others();
    while !state.borrow_mut().drain(ring) {}
    give_head_starts(state).await;
    match sockets::open_ports().await {
        Ok(open) => state.borrow_mut().handle_open_ports(&open),
        Err(error) => tracing::warn!(
            error = &error as &dyn std::error::Error,
            "relay sockets that have closed meanwhile go unnoticed; what they served ends with its leases"
        ),
    }
    let mut daemon = state.borrow_mut();
    daemon.handle_timeout();
    if daemon.keeps {
        return daemon.remember();
    }
    tracing::info!("what an earlier turn-bpf has kept is taken over, and ends with this one");
    daemon.leave_nothing();
}

/// Hears the last of what is under way, and writes down what there is to know.
pub(super) async fn leave(state: &RefCell<Daemon>, ring: &mut RingBuf<MapData>) {
    let began = Instant::now();
    loop {
        while !state.borrow_mut().drain(ring) {}
        give_head_starts(state).await;
        let is_waiting = {
            let daemon = state.borrow();
            daemon.snoop.awaits_answers(daemon.clock.now())
        };
        if !is_waiting || began.elapsed() > LAST_ANSWERS {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    state.borrow_mut().remember();
}

impl Daemon {
    /// Goes on with what an earlier daemon knew.
    pub(super) fn adopt(&mut self) {
        let Some(kept) = &self.kept else { return };
        let users: HashMap<FlowKey, Arc<User>> = kept
            .users
            .iter()
            .flatten()
            .filter_map(|(Plain(key), Plain(user))| Some((key, Arc::new(read_user(&user)?))))
            .collect();
        let mut allocations: Vec<_> = kept.allocations.iter().flatten().collect();
        allocations.sort_by_key(|(_, Plain(allocation))| allocation.made);
        let mut bindings: Vec<_> = kept.bindings.iter().flatten().collect();
        bindings.sort_by_key(|(_, Plain(binding))| binding.bound_at);

        let mut of_allocation: HashMap<FlowKey, Vec<BindingMemory>> = HashMap::new();
        let mut sessions = Vec::new();
        let now = self.clock.now();
        for (Plain(key), Plain(binding)) in &bindings {
            let Some(memory) = read_binding(key, binding) else { continue };
            let key_of_allocation = key.with_channel(Be16::new(0));
            if binding.flags & binding_flags::HAS_FLOWS != 0 {
                let user = users.get(&key_of_allocation).filter(|_| self.reads_users).cloned();
                sessions.push(read_session(key, binding, &memory, user, now));
            }
            if binding.flags & binding_flags::BOUND != 0 {
                of_allocation.entry(key_of_allocation).or_default().push(memory);
            }
        }
        let retired: Vec<_> = kept
            .totals
            .iter()
            .flatten()
            .filter_map(|(Plain(key), Plain(traffic))| {
                let course = *COURSES.get(key.course as usize)?;
                Some(((key.ifindex, course), Traffic::from(traffic)))
            })
            .collect();

        if !allocations.is_empty() {
            let (allocations, sessions) = (allocations.len(), sessions.len());
            tracing::info!(allocations, sessions, "going on where the turn-bpf before ended");
        }
        for (Plain(key), Plain(allocation)) in allocations {
            let bindings = of_allocation.remove(&key).unwrap_or_default();
            self.snoop.remember(read_allocation(&key, &allocation, users.get(&key).cloned(), bindings));
        }
        self.table.set_retired(retired);
        let entries = self.table.maps().entries();
        self.table.adopt(sessions, entries);
        // Reports that were lost, and those that an earlier daemon heard and did not live to write down.
        self.table.catch_up();
        self.table.install_waiting();
        self.lost = self.count(Reason::ControlLost);
    }

    /// Links and interfaces that are no longer asked for, and leases by ways that are not as they were.
    fn remove_others(&mut self) {
        let ifindexes: Vec<u32> = self.attached.iter().map(|one| one.ifindex).collect();
        if let Some(pins) = &self.pins {
            pins.remove_others(&ifindexes);
        }
        let known: Vec<u32> = self.kernel_interfaces.keys().flatten().collect();
        for ifindex in known.into_iter().filter(|ifindex| !ifindexes.contains(ifindex)) {
            let _not_there_anyway = self.devices.remove(ifindex);
            let _not_there_anyway = self.kernel_interfaces.remove(&ifindex);
        }
        let mtus: HashMap<u32, u32> = self.attached.iter().map(|one| (one.ifindex, one.mtu)).collect();
        self.table
            .disarm(|flow| mtus.get(&flow.out_ifindex).is_none_or(|mtu| u32::from(flow.link_mtu) > *mtu));
    }

    /// Ends what was served by relay sockets that have closed while there was no daemon. Only ports are looked at, since behind address
    /// translation the relayed transport address may be on no interface.
    fn handle_open_ports(&mut self, open: &HashSet<u16>) {
        // Two clients of one server may have no relay sockets at all between them; their leases tell.
        let of_peers = self.table.bindings().filter(|bound| !bound.is_of_pair());
        let relayed = of_peers.filter_map(|bound| bound.relayed);
        let closed: HashSet<SocketAddr> = relayed.filter(|relayed| !open.contains(&relayed.port())).collect();
        for local in closed {
            self.handle_socket_closed(local);
        }
    }

    /// Until when leases are granted if nobody says otherwise before. What does not stay ends with this process anyway.
    pub(super) fn looks_after_until(&self) -> u64 {
        if self.keeps { nanoseconds(self.clock.now() + UNATTENDED) } else { u64::MAX }
    }

    /// Nothing is to outlive this process.
    pub(super) fn leave_nothing(&mut self) {
        self.kept = None;
        if let Some(Err(error)) = self.pins.take().map(Pins::remove) {
            tracing::warn!(error = &error as &dyn std::error::Error, "what is pinned stays");
        }
    }

    /// Writes down what has changed.
    pub(super) fn remember(&mut self) {
        let allocations = self.snoop.take_changed();
        let mut bindings: HashSet<BindingId> = self.table.take_changed();
        let totals = self.table.take_changed_totals();
        let Some(kept) = &mut self.kept else { return };

        let now = self.clock.now();
        for five_tuple in allocations {
            let key = key_of(five_tuple.client, five_tuple.server, 0);
            let Some(allocation) = self.snoop.allocation(five_tuple) else {
                log(kept.allocations.remove(&Plain(key)));
                log(kept.users.remove(&Plain(key)));
                continue;
            };
            bindings.extend(allocation.bindings().map(|binding| (five_tuple, binding.channel)));
            let memory = allocation.memory();
            log(kept.allocations.insert(Plain(key), Plain(write_allocation(&memory)), 0));
            let user = memory.user.filter(|_| self.reads_users);
            match user.and_then(|user| write_user(&user)) {
                Some(user) => log(kept.users.insert(Plain(key), Plain(user), 0)),
                None => log(kept.users.remove(&Plain(key))),
            }
        }
        for id in bindings {
            let (five_tuple, channel) = id;
            let key = key_of(five_tuple.client, five_tuple.server, channel);
            let memory = self.snoop.allocation(five_tuple).and_then(|one| one.binding_memory(channel));
            match write_binding(memory, self.table.kept(id), now) {
                Some(binding) => log(kept.bindings.insert(Plain(key), Plain(binding), 0)),
                None => log(kept.bindings.remove(&Plain(key))),
            }
        }
        for ((ifindex, course), traffic) in totals {
            let course = COURSES.iter().position(|other| *other == course).unwrap_or_default() as u32;
            let key = KeptCourse { ifindex, course };
            log(kept.totals.insert(Plain(key), Plain(KeptTraffic::from(traffic)), 0));
        }
    }
}

/// In an order that stays.
const COURSES: [Course; 3] = [Course::ClientToPeer, Course::PeerToClient, Course::ClientToClient];

fn read_allocation(
    key: &FlowKey,
    kept: &KeptAllocation,
    user: Option<Arc<User>>,
    bindings: Vec<BindingMemory>,
) -> AllocationMemory {
    let relayed = |family: usize, flag| {
        (kept.flags & flag != 0).then(|| RelayedMemory {
            address: read(&kept.relayed[family]),
            deadline: Duration::from_nanos(kept.deadlines[family]),
        })
    };
    AllocationMemory {
        five_tuple: five_tuple(key),
        made: Duration::from_nanos(kept.made),
        relayed: [relayed(0, allocation_flags::V4), relayed(1, allocation_flags::V6)],
        is_mobile: kept.flags & allocation_flags::MOBILE != 0,
        transaction_id: (kept.flags & allocation_flags::TRANSACTION != 0).then_some(kept.transaction),
        learns_nothing_until: Duration::from_nanos(kept.learns_nothing_until),
        user,
        bindings,
    }
}

fn write_allocation(memory: &AllocationMemory) -> KeptAllocation {
    let mut flags = 0;
    for (is_set, flag) in [
        (memory.relayed[0].is_some(), allocation_flags::V4),
        (memory.relayed[1].is_some(), allocation_flags::V6),
        (memory.is_mobile, allocation_flags::MOBILE),
        (memory.transaction_id.is_some(), allocation_flags::TRANSACTION),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    KeptAllocation {
        made: nanoseconds(memory.made),
        learns_nothing_until: nanoseconds(memory.learns_nothing_until),
        deadlines: memory.relayed.map(|relayed| relayed.map_or(0, |relayed| nanoseconds(relayed.deadline))),
        relayed: memory.relayed.map(|relayed| write(relayed.and_then(|relayed| relayed.address))),
        transaction: memory.transaction_id.unwrap_or_default(),
        flags,
    }
}

fn read_binding(key: &FlowKey, kept: &KeptBinding) -> Option<BindingMemory> {
    Some(BindingMemory {
        channel: key.channel.value(),
        peer: read(&kept.peer)?,
        relayed: read(&kept.advertised),
        transaction_id: (kept.flags & binding_flags::TRANSACTION != 0).then_some(kept.transaction),
    })
}

fn read_session(
    key: &FlowKey,
    kept: &KeptBinding,
    memory: &BindingMemory,
    user: Option<Arc<User>>,
    now: Duration,
) -> KeptSession {
    let BindingMemory { channel, peer, relayed, .. } = *memory;
    let age = now.saturating_sub(Duration::from_nanos(kept.bound_at));
    let instant = Instant::now();
    KeptSession {
        binding: ChannelBinding { five_tuple: five_tuple(key), channel, peer, relayed },
        relayed: read(&kept.relayed),
        origin: Origin {
            time: UNIX_EPOCH + Duration::from_nanos(kept.bound_on),
            instant: instant.checked_sub(age).unwrap_or(instant),
            user,
        },
        carried: kept.carried.map(Traffic::from),
    }
}

/// None where nobody has the binding.
fn write_binding(
    memory: Option<BindingMemory>,
    session: Option<KeptSession>,
    now: Duration,
) -> Option<KeptBinding> {
    let mut kept = KeptBinding::default();
    if let Some(session) = &session {
        let on = session.origin.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        kept.bound_at = nanoseconds(now.saturating_sub(session.origin.instant.elapsed()));
        kept.bound_on = nanoseconds(on);
        kept.carried = session.carried.map(KeptTraffic::from);
        kept.peer = write(Some(session.binding.peer));
        kept.advertised = write(session.binding.relayed);
        kept.relayed = write(session.relayed);
        kept.flags |= binding_flags::HAS_FLOWS;
    }
    // Of two that differ the table's is about to end.
    let memory = memory.filter(|memory| {
        let same = |session: &KeptSession| {
            (session.binding.peer, session.binding.relayed) == (memory.peer, memory.relayed)
        };
        session.as_ref().is_none_or(same)
    });
    if let Some(memory) = memory {
        kept.peer = write(Some(memory.peer));
        kept.advertised = write(memory.relayed);
        kept.transaction = memory.transaction_id.unwrap_or_default();
        kept.flags |= binding_flags::BOUND;
        if memory.transaction_id.is_some() {
            kept.flags |= binding_flags::TRANSACTION;
        }
    }
    (kept.flags != 0).then_some(kept)
}

fn read_user(kept: &KeptUser) -> Option<User> {
    let (name, rest) = kept.text.split_at_checked(kept.name_length.into())?;
    let realm = match kept.realm_length.checked_sub(1) {
        Some(length) => Some(str::from_utf8(rest.get(..length.into())?).ok()?.to_owned()),
        None => None,
    };
    Some(User { username: str::from_utf8(name).ok()?.to_owned(), realm })
}

fn write_user(user: &User) -> Option<KeptUser> {
    let realm = user.realm.as_deref();
    let mut text = [0; KeptUser::ROOM];
    let (name, rest) = text.split_at_mut_checked(user.username.len())?;
    name.copy_from_slice(user.username.as_bytes());
    rest.get_mut(..realm.map_or(0, str::len))?.copy_from_slice(realm.unwrap_or_default().as_bytes());
    Some(KeptUser {
        name_length: user.username.len() as u16,
        realm_length: realm.map_or(0, |realm| realm.len() as u16 + 1),
        text,
    })
}

fn five_tuple(key: &FlowKey) -> FiveTuple {
    let (client, server) = addresses(key);
    FiveTuple { client, server }
}

fn read(endpoint: &Endpoint) -> Option<SocketAddr> {
    let port = endpoint.port.value();
    (port != 0).then(|| SocketAddr::new(endpoint.address.into(), port))
}

fn write(address: Option<SocketAddr>) -> Endpoint {
    address.map_or_else(Endpoint::default, |address| Endpoint {
        address: address.ip().into(),
        port: Be16::new(address.port()),
        reserved: Be16::new(0),
    })
}

impl From<KeptTraffic> for Traffic {
    fn from(kept: KeptTraffic) -> Self {
        let KeptTraffic { kernel_packets, kernel_bytes, spilled_packets, spilled_bytes } = kept;
        Self { kernel_packets, kernel_bytes, spilled_packets, spilled_bytes }
    }
}

impl From<Traffic> for KeptTraffic {
    fn from(traffic: Traffic) -> Self {
        let Traffic { kernel_packets, kernel_bytes, spilled_packets, spilled_bytes } = traffic;
        Self { kernel_packets, kernel_bytes, spilled_packets, spilled_bytes }
    }
}

/// What is not written down costs the next daemon a binding, and that no more than speed.
fn log(result: Result<(), MapError>) {
    match result {
        Ok(()) | Err(MapError::KeyNotFound) => {}
        Err(MapError::SyscallError(call)) if call.io_error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::debug!(%error, "the next turn-bpf will not be told"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "198.51.100.1:40000";
    const SERVER: &str = "[2001:db8::1]:3478";
    const RELAYED: &str = "192.0.2.1:49160";
    const RELAYED_V6: &str = "[2001:db8::1]:49161";
    const PEER: &str = "203.0.113.1:5000";

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("address of the test")
    }

    fn memory(relayed: [Option<RelayedMemory>; 2], is_mobile: bool) -> AllocationMemory {
        AllocationMemory {
            five_tuple: FiveTuple { client: at(CLIENT), server: at(SERVER) },
            made: Duration::from_nanos(1),
            relayed,
            is_mobile,
            transaction_id: is_mobile.then_some([7; 12]),
            learns_nothing_until: Duration::from_nanos(2),
            user: None,
            bindings: Vec::new(),
        }
    }

    #[test]
    fn an_allocation_is_read_as_it_was_written() {
        let relayed = |address: Option<&str>, deadline| {
            Some(RelayedMemory { address: address.map(at), deadline: Duration::from_nanos(deadline) })
        };
        for (relayed, is_mobile) in [
            ([relayed(Some(RELAYED), 3), None], false),
            ([None, relayed(Some(RELAYED_V6), 4)], true),
            ([relayed(None, 3), relayed(None, 3)], false),
            ([relayed(Some(RELAYED), 3), relayed(Some(RELAYED_V6), 4)], true),
        ] {
            let memory = memory(relayed, is_mobile);
            let key = key_of(memory.five_tuple.client, memory.five_tuple.server, 0);
            assert_eq!(read_allocation(&key, &write_allocation(&memory), None, Vec::new()), memory);
        }
    }

    #[test]
    fn a_binding_is_read_as_it_was_written() {
        let five_tuple = FiveTuple { client: at(CLIENT), server: at(SERVER) };
        let key = key_of(five_tuple.client, five_tuple.server, 0x4001);
        let memory = BindingMemory {
            channel: 0x4001,
            peer: at(PEER),
            relayed: Some(at(RELAYED)),
            transaction_id: Some([9; 12]),
        };
        let carried = Traffic { kernel_packets: 1, kernel_bytes: 2, spilled_packets: 3, spilled_bytes: 4 };
        let session = KeptSession {
            binding: ChannelBinding {
                five_tuple,
                channel: 0x4001,
                peer: at(PEER),
                relayed: Some(at(RELAYED)),
            },
            relayed: Some(at("10.0.0.5:49160")),
            origin: Origin::now(),
            carried: [carried, Traffic::default()],
        };
        let now = Duration::from_secs(1000);
        let kept = write_binding(Some(memory), Some(session.clone()), now).expect("there is one");
        assert_eq!(kept.flags, binding_flags::BOUND | binding_flags::HAS_FLOWS | binding_flags::TRANSACTION);
        assert_eq!(read_binding(&key, &kept), Some(memory));
        let later = now + Duration::from_secs(10);
        let read = read_session(&key, &kept, &memory, None, later);
        assert_eq!(
            (read.binding, read.relayed, read.carried),
            (session.binding, session.relayed, session.carried)
        );
        assert_eq!(read.origin.time, session.origin.time);
        assert!(read.origin.instant.elapsed() >= Duration::from_secs(10), "it has aged meanwhile");

        let of_snoop = write_binding(Some(memory), None, now).expect("there is one");
        assert_eq!(of_snoop.flags & binding_flags::HAS_FLOWS, 0, "as after turn-bpf evict");
        let other = BindingMemory { peer: at("203.0.113.2:5000"), ..memory };
        let of_table = write_binding(Some(other), Some(session), now).expect("there is one");
        assert_eq!(of_table.flags, binding_flags::HAS_FLOWS, "they differ");
        assert_eq!(write_binding(None, None, now), None);
    }

    #[test]
    fn a_user_is_read_as_it_was_written() {
        for (name, realm) in [
            ("", None),
            ("alice", None),
            ("alice", Some(String::new())),
            ("1795920377:bj\u{f6}rn", Some("example.org".to_owned())),
            (&"n".repeat(513), Some("r".repeat(763))),
        ] {
            let user = User { username: name.to_owned(), realm };
            assert_eq!(write_user(&user).as_ref().and_then(read_user), Some(user));
        }
        let too_long = User { username: "n".repeat(513), realm: Some("r".repeat(764)) };
        assert!(write_user(&too_long).is_none());
    }
}
