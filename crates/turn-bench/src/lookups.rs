//! How many times a packet that is relayed has a map looked into.

use std::cell::Cell;
use std::cell::RefMut;

use anyhow::{Result, ensure};
use turn_datapath::{Action, Flow, FlowEvent, FlowKey, Flows, Interface, LeaseTerms, PathMtu, ingress};
use turn_testkit::cases::subject::{Subject, data};
use turn_testkit::measurement::Budget;
use turn_testkit::memory::{MemoryFlows, MemoryFrame};

/// Maps that count what is asked of them.
struct Counting {
    flows: MemoryFlows,
    lookups: Cell<u32>,
}

impl Counting {
    fn count(&self) {
        self.lookups.set(self.lookups.get() + 1);
    }
}

impl Flows for Counting {
    type Entry<'a> = RefMut<'a, Flow>;

    fn flow(&self, key: &FlowKey) -> Option<RefMut<'_, Flow>> {
        self.count();
        self.flows.flow(key)
    }

    fn expected(&self, output: &FlowKey) -> Option<FlowKey> {
        self.count();
        self.flows.expected(output)
    }

    fn is_client(&self, key: &FlowKey) -> bool {
        self.count();
        self.flows.is_client(key)
    }

    fn add_client(&self, key: &FlowKey) {
        self.count();
        self.flows.add_client(key);
    }

    fn listening_below(&self) -> u32 {
        self.flows.listening_below()
    }

    fn admit_stranger(&self) -> bool {
        self.count();
        self.flows.admit_stranger()
    }

    fn interface(&self, ifindex: u32) -> Option<Interface> {
        self.count();
        self.flows.interface(ifindex)
    }

    fn path_mtu(&self, key: &FlowKey) -> Option<PathMtu> {
        self.count();
        self.flows.path_mtu(key)
    }

    fn now(&self) -> u64 {
        self.flows.now()
    }

    fn prepare_redirect(&self, ifindex: u32) -> bool {
        self.flows.prepare_redirect(ifindex)
    }

    fn report(&self, event: &FlowEvent) {
        self.flows.report(event);
    }
}

/// The most of all flows between a client and its peer, and of all between two clients.
pub fn budgets(terms: &LeaseTerms, payload: usize) -> Result<[Budget; 2]> {
    let with_peer = most([Subject::to_peer(), Subject::to_client()].concat(), terms, payload)?;
    let with_client = most(Subject::client_to_client(), terms, payload)?;
    let budget = |what: &str, limit: u32, measured: u32| Budget {
        what: format!("map lookups per relayed packet, {what}, counted in the same source on the host"),
        limit: f64::from(limit),
        at_most: true,
        measured: f64::from(measured),
        unit: "lookups".to_owned(),
        why: String::new(),
    };
    Ok([
        budget("between client and peer", 1, with_peer),
        budget("between two clients of one server", 2, with_client),
    ])
}

fn most(subjects: Vec<Subject>, terms: &LeaseTerms, payload: usize) -> Result<u32> {
    let mut most = 0;
    for subject in subjects {
        let subject = subject.but(|flow| (flow.lease_until, flow.heartbeat_at) = (u64::MAX, u64::MAX));
        let mut flows = MemoryFlows::new();
        flows.insert_flow(subject.key(), subject.flow);
        let counting = Counting { flows, lookups: Cell::new(0) };
        let mut frame = MemoryFrame::new(&subject.packet(&data(payload)).build());
        let action = ingress(&mut frame, &counting, terms, subject.flow.in_ifindex, &mut FlowKey::default());
        ensure!(action == Action::Transmit, "{}: {action:?}", subject.name());
        most = most.max(counting.lookups.get());
    }
    Ok(most)
}
