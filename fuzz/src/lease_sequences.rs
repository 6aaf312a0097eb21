//! One flow from packet to packet: what came in, what the server sent, and how time passed.
//!
//! The target keeps an account of its own, which knows no fingerprints and no notes, only whole packets: what went up to the
//! server, and what the server sent that is the translation of something that had gone up. Whatever is relayed has such a
//! witness within the last lease, and takes the way of one.

use std::net::SocketAddr;

use turn_datapath::egress::Sent;
use turn_datapath::{Action, Flow, FlowKey, Reason, ingress};
use turn_testkit::cases::draft::Draft;
use turn_testkit::cases::subject::{Subject, mac, tags};
use turn_testkit::cases::{ELSEWHERE, HERE, MILLISECOND, NOW, SENT, TERMS, host};
use turn_testkit::memory::{MemoryFlows, MemoryFrame};
use turn_testkit::oracle::{self, Rule};
use turn_testkit::packet::{Packet, TPID_8021Q, Tag, channel_data};
use turn_testkit::role::{CLIENT_MAC, Mac, PEER_MAC, RELAYED_MAC, SERVER_MAC};
use turn_wire::{Be16, IpAddress};

use crate::bytes::Bytes;

/// What happens next; each is followed by one byte that says how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A packet comes in, with these data.
    Receive,
    /// One comes in by another way.
    ReceiveElsewhere,
    /// The server relays the oldest packet that it has; the byte says by which way.
    Relay,
    /// The server relays the newest one.
    RelayNewest,
    /// The server throws the oldest one away.
    Drop,
    /// The server sends something of its own where a translation is expected.
    Invent,
    /// The server relays all that it has, in one buffer.
    Train,
    /// This many milliseconds.
    Milliseconds,
    /// This many tenths of a second.
    Tenths,
    /// Somebody else's packet is forwarded that looks like a translation.
    Forward,
    /// The daemon takes the flow away and puts it in again.
    Reinstall,
}

/// All of them, by number.
pub const STEPS: [Step; 11] = [
    Step::Receive,
    Step::ReceiveElsewhere,
    Step::Relay,
    Step::RelayNewest,
    Step::Drop,
    Step::Invent,
    Step::Train,
    Step::Milliseconds,
    Step::Tenths,
    Step::Forward,
    Step::Reinstall,
];

/// The way of a packet that leaves: where it shows on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    ifindex: u32,
    destination_mac: Mac,
    source: SocketAddr,
    tags: Vec<Tag>,
    dont_fragment: bool,
}

/// A packet that went up to the server.
#[derive(Clone, Debug)]
struct Up {
    data: Vec<u8>,
    /// How many went up before.
    number: usize,
    /// When.
    at: u64,
    came_elsewhere: bool,
    had_no_lease: bool,
}

struct Account {
    subject: Subject,
    flows: MemoryFlows,
    now: u64,
    /// At the server, oldest first.
    waiting: Vec<Up>,
    /// All that ever went up since the flow was installed, and what waited then.
    up: Vec<Vec<u8>>,
    /// When the server was seen relaying something that had gone up, and by which way.
    witnesses: Vec<(u64, Way)>,
    /// When the last packet went up, or a witness was seen.
    heard: u64,
    /// The flow has just been proved: by the packet that had come in just before, which had no lease.
    is_fresh: bool,
    /// The last packet that went up is one that nothing has been sent since.
    is_noted: bool,
    ups_in_a_row: u32,
    is_wildcard: bool,
}

/// Runs an input.
pub fn check(input: &[u8]) {
    let bytes = &mut Bytes::new(input);
    let subject = bytes.of(&Subject::all()).but(|flow| {
        *flow = Flow { label: flow.label, ..template(flow) };
    });
    let options = bytes.byte();
    let mut account = Account::new(subject, options & 1 != 0);
    // So many that every lease ends more than once, and that an input is judged in a millisecond.
    for _ in 0..400 {
        if bytes.is_empty() {
            break;
        }
        let step = bytes.of(&STEPS);
        account.take(step, bytes.byte());
    }
}

/// What the daemon installs: the translation, and nothing of what is learned.
fn template(flow: &Flow) -> Flow {
    Flow {
        out_source: flow.out_source,
        out_destination: flow.out_destination,
        out_source_port: flow.out_source_port,
        out_destination_port: flow.out_destination_port,
        out_channel: flow.out_channel,
        ..Flow::default()
    }
}

impl Account {
    fn new(subject: Subject, is_wildcard: bool) -> Self {
        let mut draft = Draft::received("", &subject, Vec::new());
        // Behind 1:1 NAT the server's packets have another source than it says.
        let is_wildcard = is_wildcard && subject.output.channel.is_none();
        if is_wildcard {
            let output = FlowKey { source: IpAddress::ANY, ..subject.output_key() };
            draft = draft.setting(|setting| setting.expected.push((output, subject.key())));
        }
        let flows = host::maps(&draft.into_setting());
        Self {
            subject,
            flows,
            now: NOW,
            waiting: Vec::new(),
            up: Vec::new(),
            witnesses: Vec::new(),
            heard: 0,
            is_fresh: false,
            is_noted: false,
            ups_in_a_row: 0,
            is_wildcard,
        }
    }

    fn take(&mut self, step: Step, how: u8) {
        let was_fresh = std::mem::take(&mut self.is_fresh);
        match step {
            Step::Receive => self.receive(&data(how), false, was_fresh),
            Step::ReceiveElsewhere => self.receive(&data(how), true, false),
            Step::Relay if !self.waiting.is_empty() => {
                let up = self.waiting.remove(0);
                self.relay(&up, how);
            }
            Step::RelayNewest => {
                if let Some(up) = self.waiting.pop() {
                    self.relay(&up, how);
                }
            }
            Step::Drop if !self.waiting.is_empty() => drop(self.waiting.remove(0)),
            Step::Relay | Step::Drop => {}
            Step::Invent => {
                let invented = [b"invented".to_vec(), data(how)].concat();
                let way = self.way(0);
                self.send(&self.translation(&invented), &way, 0, true);
            }
            Step::Train => self.train(how),
            Step::Milliseconds => self.pass(u64::from(how) * MILLISECOND),
            Step::Tenths => self.pass(u64::from(how) * 100 * MILLISECOND),
            Step::Forward => {
                let way = self.way(how);
                let data = self.waiting.first().map_or_else(|| data(how), |up| up.data.clone());
                self.send(&self.translation(&data), &way, 0, false);
            }
            Step::Reinstall => {
                let key = self.subject.key();
                self.flows.remove_flow(&key);
                self.flows.insert_flow(key, self.subject.flow);
                // What waits went up before there was this flow. That the server relays it shows as much as ever: a packet that
                // comes in after it may be alike in all that a fingerprint covers.
                self.waiting.iter_mut().for_each(|up| up.number = usize::MAX - 1);
                *self = Self {
                    flows: std::mem::take(&mut self.flows),
                    now: self.now,
                    up: self.waiting.iter().map(|up| up.data.clone()).collect(),
                    waiting: std::mem::take(&mut self.waiting),
                    ..Self::new(self.subject.clone(), self.is_wildcard)
                };
            }
        }
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        self.flows.set_now(self.now);
    }

    /// A packet comes in.
    fn receive(&mut self, data: &[u8], elsewhere: bool, must_be_relayed: bool) {
        let packet = match self.subject.input.channel {
            Some(channel) => Packet::new(self.subject.input.source, self.subject.input.destination)
                .channel_data(channel, data, &[]),
            None => self.subject.packet(data),
        };
        let (packet, interface) = match elsewhere {
            true => (packet.macs(RELAYED_MAC, CLIENT_MAC), ELSEWHERE),
            false => (packet, HERE),
        };
        let input = packet.build();
        let mut frame = MemoryFrame::new(&input);
        match ingress(&mut frame, &self.flows, &TERMS, interface, &mut FlowKey::default()) {
            Action::Pass(reason) => {
                // What is longer than anything that the server sent may be too long.
                assert!(!must_be_relayed || data.len() > 500, "{reason:?} right behind a witness");
                assert!(reason.is_spilled(), "{reason:?} though the flow is known");
                assert_eq!(frame.bytes(), input, "what goes on is untouched");
                self.heard = self.now;
                self.ups_in_a_row += 1;
                let had_no_lease = reason == Reason::NoLease;
                let number = self.up.len();
                self.waiting.push(Up {
                    data: data.to_vec(),
                    number,
                    at: self.now,
                    came_elsewhere: elsewhere,
                    had_no_lease,
                });
                self.up.push(data.to_vec());
                self.is_noted = true;
            }
            Action::Copy(..) => panic!("no request came in"),
            action @ (Action::Transmit | Action::Redirect) => {
                self.judge(&input, frame.bytes(), action, interface);
            }
        }
    }

    /// Something was relayed.
    fn judge(&self, input: &[u8], output: &[u8], action: Action, interface: u32) {
        let out_ifindex = match action {
            Action::Redirect => self.flows.take_redirects()[0],
            _ => interface,
        };
        assert!(self.now - self.heard < TERMS.heartbeat, "nothing has gone to the server for a heartbeat");
        let within: Vec<_> =
            self.witnesses.iter().filter(|(at, _)| self.now - at < TERMS.lease).map(|(_, way)| way).collect();
        assert!(!within.is_empty(), "relayed without a witness in the last lease");
        let fits = |way: &&Way| {
            let output_leg = oracle::Leg { source: way.source, ..self.subject.output };
            let mut rule = Rule::new(self.subject.input, output_leg, way.destination_mac, RELAYED_MAC);
            rule.tags = way.tags.clone();
            rule.dont_fragment = way.dont_fragment;
            way.ifindex == out_ifindex && oracle::check(input, &rule, output).is_ok()
        };
        assert!(within.iter().any(fits), "relayed by a way that no witness took: {output:02x?}, {within:?}");
    }

    fn relay(&mut self, up: &Up, how: u8) {
        let way = self.way(how);
        let is_newest = self.is_noted && up.number + 1 == self.up.len() && self.ups_in_a_row < 200;
        self.send(&self.translation(&up.data), &way, 0, true);
        self.witness(&up.data, way);
        let is_late = self.now - up.at >= TERMS.lease;
        // The next packet must be relayed: it comes by the same way, and nothing hinders it.
        self.is_fresh = is_newest && up.had_no_lease && !up.came_elsewhere && !is_late;
        self.ups_in_a_row = 0;
    }

    /// All that wait leave in one buffer, if they are of one length.
    fn train(&mut self, how: u8) {
        let Some(length) = self.waiting.first().map(|up| up.data.len()).filter(|length| *length > 0) else {
            return;
        };
        let way = self.way(how);
        let train: Vec<Up> = self.waiting.extract_if(.., |up| up.data.len() == length).take(30).collect();
        let payload: Vec<u8> = train
            .iter()
            .flat_map(|up| match self.subject.output.channel {
                Some(channel) => channel_data(channel, &up.data, &[]),
                None => up.data.clone(),
            })
            .collect();
        let segment = payload.len() / train.len();
        self.send(&payload, &way, if train.len() == 1 { 0 } else { segment as u16 }, true);
        for up in train {
            self.witness(&up.data, way.clone());
        }
    }

    fn witness(&mut self, data: &[u8], way: Way) {
        if self.up.iter().any(|up| up == data) {
            self.witnesses.push((self.now, way));
            self.heard = self.now;
        }
    }

    fn translation(&self, data: &[u8]) -> Vec<u8> {
        match self.subject.output.channel {
            Some(channel) => channel_data(channel, data, &[]),
            None => data.to_vec(),
        }
    }

    fn way(&self, how: u8) -> Way {
        let mut source = self.subject.output.source;
        if self.is_wildcard && how & 8 != 0 {
            source.set_ip(match source {
                SocketAddr::V4(_) => [10, 0, 0, 5].into(),
                SocketAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 5].into(),
            });
        }
        Way {
            ifindex: if how & 1 == 0 { HERE } else { ELSEWHERE },
            destination_mac: if how & 2 == 0 { PEER_MAC } else { SERVER_MAC },
            source,
            tags: if how & 4 == 0 { vec![] } else { vec![Tag { tpid: TPID_8021Q, tci: 5 }] },
            dont_fragment: how & 16 == 0,
        }
    }

    /// The server's packet, or train of packets, leaves.
    fn send(&mut self, payload: &[u8], way: &Way, segment: u16, by_this_host: bool) {
        let mut packet = Packet::new(way.source, self.subject.output.destination)
            .macs(way.destination_mac, RELAYED_MAC)
            .dont_fragment(way.dont_fragment)
            .payload(payload);
        for tag in &way.tags {
            packet = packet.tag(tag.tpid, tag.tci);
        }
        let input = packet.build();
        let frame = MemoryFrame::new(&input);
        let sent = Sent { ifindex: way.ifindex, by_this_host, segment, ..SENT };
        host::look(&frame, &self.flows, &sent);
        self.is_noted = false;
        assert_eq!(frame.bytes(), input, "what is sent is only read");
        let flow = self.flows.peek(&self.subject.key()).expect("nobody took the flow away");
        let template = self.subject.flow;
        assert_eq!(
            (flow.out_destination, flow.out_destination_port, flow.out_channel),
            (template.out_destination, template.out_destination_port, template.out_channel)
        );
        let known = [SERVER_MAC, PEER_MAC].map(mac);
        assert!(flow.armed == 0 || known.contains(&flow.out_mac_destination));
        assert!(
            flow.out_tags == tags(&[])
                || flow.out_tags.innermost() == Some((Be16::new(TPID_8021Q), Be16::new(5)))
        );
    }
}

/// Application data: some of it alike in the first 32 bytes, some in all but the length, some empty.
fn data(how: u8) -> Vec<u8> {
    let length = [48, 32, 33, 4, 0, 1, 1200, 48][usize::from(how >> 5)];
    let mut data = vec![0x80; length];
    if let Some(last) = data.last_mut() {
        *last = how;
    }
    if let Some(first) = data.get_mut(3) {
        *first = how & 0x1f;
    }
    data
}
