//! turn-bpf itself, without a kernel: the datapath over maps in memory, and what the daemon does with the ring buffer.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use turn_bpf::daemon::joining::{came_in, leg};
use turn_bpf::flow_table::{Cause, Entries, FlowMaps, FlowTable, InsertError, key_of};
use turn_datapath::control::kind;
use turn_datapath::egress::Sent;
use turn_datapath::flow::interface_flags;
use turn_datapath::joining::{self, Sighting};
use turn_datapath::{Action, Flow, FlowEvent, FlowKey, Flows as _, Interface, Outgoing, Reason, ingress};
use turn_snoop::{Allocation, Command, FiveTuple, Limits, Snoop};
use turn_testkit::cases::{ELSEWHERE, HERE, TERMS, host};
use turn_testkit::memory::{MemoryFlows, MemoryFrame};

use crate::place;

/// Fewer than all bindings could use, so that the map is full now and then.
const ROOM: usize = 9;
/// Fewer than usual, since no call of the model lasts long.
const PROOFS: usize = 4;
/// Records that the ring buffer holds.
const RING: usize = 24;

/// What the kernel tells the daemon.
#[derive(Clone, Debug)]
pub enum Record {
    /// A control message.
    Message { kind: u32, time: u64, source: SocketAddr, destination: SocketAddr, bytes: Vec<u8> },
    /// A flow got or lost its lease.
    Event(FlowEvent),
    /// The server sent what no flow expects.
    Sighting(Sighting),
}

/// What became of a frame.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It goes to the server, untouched.
    ToServer(Reason),
    /// It left by this interface, and is this now.
    Left(u32, Vec<u8>),
}

/// The maps, as the kernel side and the daemon both hold them.
#[derive(Clone)]
struct Maps {
    memory: Rc<RefCell<MemoryFlows>>,
    is_unsettled: Rc<RefCell<bool>>,
}

impl FlowMaps for Maps {
    fn insert_flow(&mut self, key: &FlowKey, flow: &Flow) -> Result<(), InsertError> {
        assert!(!*self.is_unsettled.borrow(), "a place may be reused under a running program");
        let mut memory = self.memory.borrow_mut();
        if memory.peek(key).is_some() {
            return Err(InsertError::Exists);
        }
        if memory.flow_count() >= ROOM {
            return Err(InsertError::Full);
        }
        memory.insert_flow(*key, *flow);
        Ok(())
    }

    fn remove_flow(&mut self, key: &FlowKey) {
        *self.is_unsettled.borrow_mut() |= self.memory.borrow_mut().remove_flow(key);
    }

    fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.memory.borrow().peek(key)
    }

    fn insert_expected(&mut self, output: &FlowKey, flow: &FlowKey) -> Result<(), InsertError> {
        self.memory.borrow_mut().insert_expected(*output, *flow);
        Ok(())
    }

    fn remove_expected(&mut self, output: &FlowKey) {
        self.memory.borrow_mut().remove_expected(output);
    }

    fn settle(&mut self) {
        *self.is_unsettled.borrow_mut() = false;
    }
}

/// The programs and the daemon.
pub struct Host {
    maps: Maps,
    ring: VecDeque<Record>,
    snoop: Snoop,
    table: FlowTable<Maps>,
    /// Records that found the ring buffer full.
    pub lost: u64,
    /// Some did since the daemon looked.
    has_lost: bool,
    /// Calls that were adopted without a control message.
    pub joined: u64,
}

impl Host {
    /// As after the start of the daemon.
    pub fn new(now: u64) -> Self {
        let mut memory = MemoryFlows::new();
        memory.set_now(now);
        memory.admit_strangers(true);
        for ifindex in [HERE, ELSEWHERE] {
            memory.insert_interface(
                ifindex,
                Interface { mtu: 1500, flags: interface_flags::TRANSMITS, looked_after_until: u64::MAX },
            );
            memory.insert_device(ifindex);
        }
        let maps = Maps { memory: Rc::new(RefCell::new(memory)), is_unsettled: Rc::default() };
        Self {
            table: FlowTable::new(maps.clone()),
            maps,
            ring: VecDeque::new(),
            snoop: new_snoop(),
            lost: 0,
            has_lost: false,
            joined: 0,
        }
    }

    /// The daemon ends, and another one goes on with what it knew and with the maps as they are.
    pub fn replace_daemon(&mut self) {
        let mut allocations: Vec<_> = self.snoop.allocations().map(Allocation::memory).collect();
        allocations.sort_by_key(|allocation| (allocation.made, allocation.five_tuple));
        let mut sessions: Vec<_> =
            self.table.ids().into_iter().filter_map(|id| self.table.kept(id)).collect();
        sessions.sort_by_key(|session| session.origin.instant);
        let (flows, expected) = {
            let memory = self.maps.memory.borrow();
            (memory.flows(), memory.all_expected())
        };
        let entries =
            Entries { flows: flows.keys().copied().collect(), outputs: expected.keys().copied().collect() };

        self.snoop = new_snoop();
        for allocation in allocations {
            assert!(self.snoop.remember(allocation), "there is room for it");
        }
        self.table = FlowTable::new(self.maps.clone());
        self.table.adopt(sessions, entries);

        let memory = self.maps.memory.borrow();
        for (key, flow) in flows {
            assert_eq!(memory.peek(&key), Some(flow), "a flow stays as it is");
        }
        let expected_now = memory.all_expected();
        for (output, flow) in expected {
            assert_eq!(expected_now.get(&output), Some(&flow), "what proves a flow goes on to prove it");
        }
    }

    /// Sets the clock.
    pub fn set_now(&self, now: u64) {
        self.maps.memory.borrow().set_now(now);
    }

    /// A frame comes in.
    pub fn receive(&mut self, input: &[u8], ifindex: u32) -> Fate {
        let maps = self.maps.memory.borrow();
        let mut frame = MemoryFrame::new(input);
        let mut key = FlowKey::default();
        let action = ingress(&mut frame, &*maps, &TERMS, ifindex, &mut key);
        let mut records: Vec<_> = maps.take_reports().into_iter().map(Record::Event).collect();
        let fate = match action {
            Action::Pass(Reason::NoFlow) => {
                joining::note(&frame, &*maps);
                Fate::ToServer(Reason::NoFlow)
            }
            Action::Pass(reason) => Fate::ToServer(reason),
            Action::Copy(message) => {
                let bytes = &frame.bytes()[message.at..message.at + message.length];
                records.push(Record::message(kind::REQUEST, maps.now(), &key, bytes));
                Fate::ToServer(Reason::Control)
            }
            Action::Transmit => Fate::Left(ifindex, frame.bytes().to_vec()),
            Action::Redirect => Fate::Left(maps.take_redirects()[0], frame.bytes().to_vec()),
        };
        if let Fate::ToServer(reason) = fate {
            assert_eq!(frame.bytes(), input, "what goes to the server is untouched: {reason:?}");
        }
        drop(maps);
        self.report(records);
        fate
    }

    /// The server sends a frame; what that was counted as.
    pub fn send(&mut self, input: &[u8], sent: &Sent) -> Vec<Reason> {
        let maps = self.maps.memory.borrow();
        let frame = MemoryFrame::new(input);
        let (counted, messages) = host::look(&frame, &maps, sent);
        if let Ok(mut outgoing) = Outgoing::read(&frame, sent) {
            joining::sight(&frame, &*maps, sent, &mut outgoing);
        }
        let mut records: Vec<_> = maps.take_reports().into_iter().map(Record::Event).collect();
        records.extend(messages.iter().map(|(key, message)| {
            let bytes = &frame.bytes()[message.at..message.at + message.length];
            Record::message(message.kind, maps.now(), key, bytes)
        }));
        records.extend(maps.take_sightings().into_iter().map(Record::Sighting));
        drop(maps);
        self.report(records);
        counted
    }

    fn report(&mut self, records: Vec<Record>) {
        for record in records {
            if self.ring.len() < RING {
                self.ring.push_back(record);
            } else {
                self.lost += 1;
                self.has_lost = true;
            }
        }
    }

    /// The daemon takes the next record, as `daemon.rs` does.
    pub fn take_record(&mut self) -> Option<Record> {
        let record = self.ring.pop_front()?;
        match &record {
            Record::Message { kind, time, source, destination, bytes } => {
                let now = Duration::from_nanos(*time);
                if *kind == kind::REQUEST {
                    self.snoop.handle_request(now, *source, *destination, bytes);
                } else {
                    self.snoop.handle_response(now, *source, *destination, bytes);
                }
                self.obey();
            }
            Record::Event(event) if event.header.kind == kind::ARMED => {
                let source = SocketAddr::new(event.out_source.into(), event.out_source_port.value());
                self.table.armed(&event.header.key, source);
            }
            Record::Event(_) => {}
            Record::Sighting(sighting) => {
                let now = Duration::from_nanos(sighting.header.time);
                let (output, came_in) = (leg(&sighting.header.key), came_in(sighting));
                self.snoop.handle_output(now, output, sighting.fingerprint, came_in);
                self.obey();
            }
        }
        self.table.install_waiting();
        Some(record)
    }

    /// The daemon's second is over.
    pub fn tick(&mut self, now: u64) {
        self.snoop.handle_timeout(Duration::from_nanos(now));
        self.obey();
        if std::mem::take(&mut self.has_lost) {
            self.table.catch_up();
        }
        self.table.install_waiting();
    }

    /// The daemon hears of a relay socket that closed.
    pub fn socket_closed(&mut self, local: SocketAddr) {
        self.table.socket_closed(local);
        self.table.install_waiting();
    }

    /// The clients that the daemon knows bindings of.
    pub fn bound_clients(&self) -> impl Iterator<Item = SocketAddr> {
        self.table.bindings().map(|bound| bound.binding.five_tuple.client)
    }

    /// How many flows are in the map.
    pub fn flow_count(&self) -> (usize, usize) {
        (self.table.flow_count(), self.maps.memory.borrow().flow_count())
    }

    fn obey(&mut self) {
        while let Some(command) = self.snoop.poll_command() {
            match command {
                Command::Bind(binding) | Command::BindDoubtful(binding) => {
                    self.table.bind(binding, None);
                }
                Command::Follow(FiveTuple { client, server }) => {
                    self.joined += 1;
                    self.maps.memory.borrow().add_client(&key_of(client, server, 0));
                }
                Command::Unbind(binding, revocation) => {
                    self.table.unbind(&binding, Cause::Revoked(revocation))
                }
                Command::Forget(FiveTuple { client, server }) => {
                    self.maps.memory.borrow_mut().remove_client(&key_of(client, server, 0));
                }
            }
        }
    }
}

fn new_snoop() -> Snoop {
    let mut snoop = Snoop::new(Limits { proofs: PROOFS, ..Limits::default() });
    snoop.set_local_addresses(
        place::LISTENERS.iter().map(SocketAddr::ip).chain([place::RELAY, place::RELAY_V6]),
    );
    snoop
}

impl Record {
    fn message(kind: u32, time: u64, key: &FlowKey, bytes: &[u8]) -> Self {
        Self::Message {
            kind,
            time,
            source: SocketAddr::new(key.source.into(), key.source_port.value()),
            destination: SocketAddr::new(key.destination.into(), key.destination_port.value()),
            bytes: bytes.to_vec(),
        }
    }
}
