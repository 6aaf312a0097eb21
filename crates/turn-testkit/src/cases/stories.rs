//! Several packets of one flow after another.

use turn_datapath::control::kind;
use turn_datapath::{Flow, Reason};

use super::draft::Draft;
use super::subject::{Subject, data, mac};
use super::{HERE, Input, MILLISECOND, Run, SECOND, SENT, Setting, Verdict};
use crate::packet::Packet;
use crate::role::CLIENT_MAC;

/// A flow, and the server behind it.
struct Story<'a> {
    subject: Subject,
    setting: Setting,
    run: Run<'a>,
    packets: u8,
    reported: Vec<u32>,
}

/// From no lease to a lease, through heartbeats, to its lapse, and back.
pub fn a_lease_from_its_first_packet_to_its_second_life(run: Run<'_>) {
    for subject in Subject::all() {
        let mut story = Story::new(&subject, &mut *run);
        assert_eq!(story.client_sends(), [Reason::NoLease]);
        assert_eq!(story.client_sends(), [Reason::NoLease]);
        assert_eq!(story.server_relays(1), [Reason::OtherPayload], "the second one is behind it");
        story.passes(20 * MILLISECOND);
        assert_eq!(story.server_relays(0), [Reason::Witness]);
        assert_eq!(story.reported, [kind::ARMED]);

        let mut spilled = 0;
        for _ in 0..3 {
            for _ in 0..30 {
                story.passes(100 * MILLISECOND);
                match story.client_sends()[..] {
                    [Reason::Relayed] => {}
                    [Reason::Heartbeat] => {
                        spilled += 1;
                        assert_eq!(story.server_relays(0), [Reason::Witness]);
                    }
                    ref other => panic!("{}: {other:?}", subject.name()),
                }
            }
        }
        assert_eq!(spilled, 3, "one packet per heartbeat");
        assert_eq!(story.reported, [kind::ARMED], "renewals are not reported");

        // The server falls silent.
        let mut passed = 0;
        while story.client_sends() != [Reason::NoLease] {
            story.passes(100 * MILLISECOND);
            passed += 100 * MILLISECOND;
        }
        assert!(passed <= 10 * SECOND, "{passed} ns after the last witness");
        assert_eq!(story.reported, [kind::ARMED, kind::LAPSED]);
        for _ in 0..5 {
            story.passes(SECOND);
            assert_eq!(story.client_sends(), [Reason::NoLease]);
        }
        assert_eq!(story.reported, [kind::ARMED, kind::LAPSED], "once is enough");

        assert_eq!(story.server_relays(0), [Reason::Witness]);
        assert_eq!(story.client_sends(), [Reason::Relayed]);
        assert_eq!(story.flow().armed, 2);
    }
}

/// A packet of another way ends the lease, and the one after it brings the new way.
pub fn a_new_way_takes_two_witnesses(run: Run<'_>) {
    for subject in Subject::all() {
        let mut story = Story::new(&subject, &mut *run);
        story.client_sends();
        story.server_relays(0);
        assert_eq!(story.client_sends(), [Reason::Relayed]);

        let reroute = |packet: Packet| packet.macs([0x02, 7, 7, 7, 7, 7], CLIENT_MAC);
        story.passes(3 * SECOND);
        assert_eq!(story.client_sends(), [Reason::Heartbeat]);
        assert_eq!(story.server_relays_by(0, reroute), [Reason::PathChanged]);
        assert_eq!(story.client_sends(), [Reason::NoLease]);
        assert_eq!(story.server_relays_by(0, reroute), [Reason::Witness]);
        assert_eq!(story.reported, [kind::ARMED, kind::PATH_CHANGED, kind::ARMED]);
        assert_eq!(story.flow().out_mac_destination, mac([0x02, 7, 7, 7, 7, 7]));
        assert_eq!(story.client_sends(), [Reason::Relayed]);
    }
}

/// Every packet is counted once: relayed or spilled.
pub fn every_packet_of_a_flow_is_counted_once(run: Run<'_>) {
    for subject in Subject::all() {
        let mut story = Story::new(&subject, &mut *run);
        let mut relayed = 0;
        for round in 0..100 {
            story.passes(70 * MILLISECOND);
            match story.client_sends()[..] {
                [Reason::Relayed] => relayed += 1,
                _ if round % 3 == 0 => drop(story.server_relays(0)),
                _ => {}
            }
        }
        let flow = story.flow();
        assert_eq!((flow.kernel_packets, flow.kernel_packets + flow.spilled_packets), (relayed, 100));
        assert_eq!(flow.kernel_bytes, relayed * 48);
    }
}

impl<'a> Story<'a> {
    fn new(subject: &Subject, run: Run<'a>) -> Self {
        let subject = subject.but(|flow| {
            let Flow { lease_until, kernel_packets, kernel_bytes, spilled_packets, armed, .. } = flow;
            for count in [lease_until, kernel_packets, kernel_bytes, spilled_packets, armed] {
                *count = 0;
            }
        });
        let setting = Draft::received("a story", &subject, Vec::new()).into_setting();
        Self { subject, setting, run, packets: 0, reported: Vec::new() }
    }

    fn flow(&self) -> Flow {
        self.setting.flows[0].1
    }

    fn passes(&mut self, nanoseconds: u64) {
        self.setting.now += nanoseconds;
    }

    /// The next packet comes in.
    fn client_sends(&mut self) -> Vec<Reason> {
        self.packets += 1;
        let frame = self.subject.packet(&self.data(0)).build();
        self.run(Input::Received { frame, interface: HERE })
    }

    /// The server relays the packet that came in so many packets before the last one.
    fn server_relays(&mut self, back: u8) -> Vec<Reason> {
        self.server_relays_by(back, |packet| packet)
    }

    /// The server relays it in its own way.
    fn server_relays_by(&mut self, back: u8, way: impl FnOnce(Packet) -> Packet) -> Vec<Reason> {
        let frame = way(self.subject.servers(&self.data(back))).build();
        self.run(Input::Sent { frame, sent: SENT })
    }

    fn data(&self, back: u8) -> Vec<u8> {
        let mut data = data(48);
        data[3] = self.packets.wrapping_sub(back);
        data
    }

    fn run(&mut self, input: Input) -> Vec<Reason> {
        let outcome = (self.run)(&self.setting, &input).expect("stories run everywhere");
        if outcome.verdict == Verdict::Onward {
            assert_eq!(outcome.frame, input.frame(), "what goes on is untouched");
        }
        self.setting = self.setting.after(&outcome);
        self.reported.extend(outcome.reports.iter().map(|report| report.kind));
        outcome.counted
    }
}
