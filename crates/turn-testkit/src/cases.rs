//! Tables of packets: what comes in, what the maps hold, what leaves, and what the maps hold then. The host and the kernel
//! run the same tables, since both are asked through one function type, [`Run`].
//!
//! Expected packets come from the [`oracle`](crate::oracle), never from the code under test.

use std::collections::HashSet;
use std::net::SocketAddr;

use turn_datapath::egress::Sent;
use turn_datapath::{Flow, FlowKey, Interface, LeaseTerms, PathMtu, Reason};
use turn_wire::ethernet::VlanTags;

pub mod channel_data;
pub mod checksums;
pub mod control;
pub mod demultiplexing;
pub mod draft;
pub mod framing;
pub mod headers;
pub mod host;
pub mod joining;
pub mod lease;
pub mod path;
pub mod path_mtu;
pub mod random;
pub mod rates;
pub mod stories;
pub mod subject;
pub mod tables;
pub mod trains;
pub mod verdict;
pub mod vlan;
pub mod witness;

/// One millisecond.
pub const MILLISECOND: u64 = 1_000_000;
/// One second.
pub const SECOND: u64 = 1_000 * MILLISECOND;
/// The time on the clock of every case. A runner whose clock cannot be set moves the times instead.
pub const NOW: u64 = 1_000_000 * SECOND;
/// How long leases run in every case.
pub const TERMS: LeaseTerms =
    LeaseTerms { lease: 10 * SECOND, heartbeat: 3 * SECOND, rate_cost: 0, joins_until: 0 };
/// Interface that packets come in by. It is the number of the loopback interface, which the kernel's test runs have everywhere.
pub const HERE: u32 = 1;
/// Another interface.
pub const ELSEWHERE: u32 = 7;
/// What is known beside the bytes of a datagram that this host sends.
pub const SENT: Sent = Sent { ifindex: HERE, by_this_host: true, segment: 0, tag: VlanTags::NONE };

/// Shortest frame that the kernel's test runs let come in: an Ethernet header.
const SHORTEST_RECEIVED: usize = 14;
/// Shortest frame that they let leave: with a whole IP header.
const SHORTEST_SENT: usize = 14 + 40;
/// Longest frame that they let leave, and the most of one that comes in that they put in one part: of a page of 4096 bytes
/// what headroom (256) and `struct skb_shared_info` (320) leave.
pub const FIRST_PART: usize = 3520;
/// Longest frame that they let come in: with as many parts as there may be (`MAX_SKB_FRAGS`, 17 pages).
const LONGEST: usize = FIRST_PART + 17 * 4096;

/// What the maps hold and what the clock says.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Time on the clock.
    pub now: u64,
    /// All flows.
    pub flows: Vec<(FlowKey, Flow)>,
    /// Expected outputs, and whose.
    pub expected: Vec<(FlowKey, FlowKey)>,
    /// 5-tuples of allocations.
    pub clients: HashSet<FlowKey>,
    /// Whether requests of other clients are looked at.
    pub admits_strangers: bool,
    /// What the kernel's routing says of flows.
    pub path_mtus: Vec<(FlowKey, PathMtu)>,
    /// Known interfaces.
    pub interfaces: Vec<(u32, Interface)>,
    /// Interfaces that frames may be redirected to.
    pub devices: Vec<u32>,
}

/// A packet, and how it meets a program.
#[derive(Clone, Debug)]
pub enum Input {
    /// It came in by an interface.
    Received {
        /// From the Ethernet header on.
        frame: Vec<u8>,
        /// By which.
        interface: u32,
    },
    /// It came in, and generic XDP has let it pass.
    Passed {
        /// From the Ethernet header on.
        frame: Vec<u8>,
        /// The VLAN tag that is kept beside it.
        tag: VlanTags,
    },
    /// It leaves.
    Sent {
        /// From the Ethernet header on.
        frame: Vec<u8>,
        /// The rest that is known of it.
        sent: Sent,
    },
}

/// What became of the packet, and of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where the packet goes.
    pub verdict: Verdict,
    /// The packet.
    pub frame: Vec<u8>,
    /// Counters that went up, by number, each as often as it did.
    pub counted: Vec<Reason>,
    /// The messages that the daemon got.
    pub messages: Vec<Message>,
    /// The events that the daemon got.
    pub reports: Vec<Report>,
    /// All flows, in the order of the setting.
    pub flows: Vec<(FlowKey, Flow)>,
    /// 5-tuples of allocations.
    pub clients: HashSet<FlowKey>,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the server, or out, as it was about to.
    Onward,
    /// Out of the interface it came in by.
    Transmit,
    /// Out of another interface.
    Redirect,
}

/// A control message as the daemon gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Request or response.
    pub kind: u32,
    /// When.
    pub time: u64,
    /// Its addresses.
    pub key: FlowKey,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// An event of a flow as the daemon gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What happened.
    pub kind: u32,
    /// When.
    pub time: u64,
    /// To which flow.
    pub key: FlowKey,
    /// The source of its packets.
    pub out_source: SocketAddr,
}

/// One row of a table.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// Before.
    pub setting: Setting,
    /// The packet.
    pub input: Input,
    /// After.
    pub outcome: Outcome,
}

/// Runs one packet through one of the programs; none where such a packet cannot be run there.
pub type Run<'a> = &'a mut dyn FnMut(&Setting, &Input) -> Option<Outcome>;

impl Input {
    /// The packet.
    pub fn frame(&self) -> &[u8] {
        match self {
            Self::Received { frame, .. } | Self::Passed { frame, .. } | Self::Sent { frame, .. } => frame,
        }
    }

    /// True where the kernel can be given such a packet by `BPF_PROG_TEST_RUN` without devices of its own.
    pub fn suits_the_kernel(&self) -> bool {
        let length = self.frame().len();
        match self {
            Self::Received { interface, .. } => {
                *interface == HERE && (SHORTEST_RECEIVED..=LONGEST).contains(&length)
            }
            Self::Passed { tag, .. } => {
                *tag == VlanTags::NONE && (SHORTEST_SENT..=FIRST_PART).contains(&length)
            }
            Self::Sent { sent, .. } => {
                let is_at_hand = sent.ifindex == HERE && sent.tag == VlanTags::NONE;
                is_at_hand && (SHORTEST_SENT..=FIRST_PART).contains(&length)
            }
        }
    }
}

impl Setting {
    /// No flows and no clients; both interfaces take redirected frames.
    pub fn empty() -> Self {
        let interface = Interface {
            mtu: subject::MTU.into(),
            flags: turn_datapath::flow::interface_flags::TRANSMITS,
            looked_after_until: u64::MAX,
        };
        Self {
            now: NOW,
            flows: Vec::new(),
            expected: Vec::new(),
            clients: HashSet::new(),
            admits_strangers: true,
            path_mtus: Vec::new(),
            interfaces: vec![(HERE, interface), (ELSEWHERE, interface)],
            devices: vec![HERE, ELSEWHERE],
        }
    }

    /// The same after a packet has left its traces.
    pub fn after(&self, outcome: &Outcome) -> Self {
        Self { flows: outcome.flows.clone(), clients: outcome.clients.clone(), ..self.clone() }
    }
}

/// Runs a table and panics with the first rows that come out otherwise than they should.
pub fn check(cases: &[Case], run: Run<'_>) {
    let mut failures = Vec::new();
    let mut ran = 0;
    for case in cases {
        let Some(actual) = run(&case.setting, &case.input) else { continue };
        ran += 1;
        if actual != case.outcome {
            failures.push(difference(case, &actual));
        }
    }
    let shown = failures.iter().take(3).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(failures.is_empty(), "{} of {ran} rows differ:\n{shown}", failures.len());
    assert_ne!(ran, 0, "a table of which no row can be run shows nothing");
}

fn difference(case: &Case, actual: &Outcome) -> String {
    let Outcome { verdict, frame, counted, messages, reports, flows, clients } = &case.outcome;
    let mut text = format!("--- {}", case.name);
    let mut compare = |what: &str, expected: String, actual: String| {
        if expected != actual {
            text.push_str(&format!("\n  {what}\n    expected {expected}\n    actual   {actual}"));
        }
    };
    compare("verdict", format!("{verdict:?}"), format!("{:?}", actual.verdict));
    compare("frame", format!("{frame:02x?}"), format!("{:02x?}", actual.frame));
    compare("counted", format!("{counted:?}"), format!("{:?}", actual.counted));
    compare("messages", format!("{messages:02x?}"), format!("{:02x?}", actual.messages));
    compare("reports", format!("{reports:?}"), format!("{:?}", actual.reports));
    for (expected, actual) in flows.iter().zip(&actual.flows) {
        compare("flow", format!("{expected:?}"), format!("{actual:?}"));
    }
    compare("number of flows", flows.len().to_string(), actual.flows.len().to_string());
    if *clients != actual.clients {
        compare("clients", format!("{clients:?}"), format!("{:?}", actual.clients));
    }
    text
}
