//! Packets of a flow with and without a lease.

use turn_datapath::Reason;
use turn_datapath::control::kind;

use super::draft::Draft;
use super::subject::{DATA, Subject, mac, print};
use super::{Case, ELSEWHERE, HERE, MILLISECOND, NOW, SECOND};
use crate::packet::UdpChecksum;
use crate::role::{CLIENT_MAC, RELAYED_MAC, SERVER_MAC};

/// Without a lease a packet goes to the server, and the flow remembers it.
pub fn without_a_lease_a_packet_is_noted() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let subject = subject.but(|flow| flow.lease_until = 0);
        for data in [&[][..], b"x", DATA, &[0; 32], &[0; 33], &[7; 1200]] {
            let frame = subject.packet(data).build();
            let draft = Draft::received(format!("{} bytes", data.len()), &subject, frame);
            cases.push(noted(draft.passes(Reason::NoLease), data));
        }
        let padding: &[u8] = if subject.input.channel.is_some() { &[9] } else { &[] };
        let frame = subject.padded(DATA, padding).build();
        let case = Draft::received("padding is not part of the data", &subject, frame);
        cases.push(noted(case.passes(Reason::NoLease), DATA));
    }
    cases
}

/// While the server is given time to relay the noted packet, no other takes its place; after 100 ms one does.
pub fn a_noted_packet_is_not_replaced_for_100_ms() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for (name, noted_until) in [("all", NOW + 100 * MILLISECOND), ("the last nanosecond", NOW + 1)] {
            let subject = subject.awaiting(b"another").but(|flow| {
                flow.lease_until = 0;
                flow.noted_until = noted_until;
            });
            let draft = Draft::received(name, &subject, subject.packet(DATA).build());
            cases.push(draft.passes(Reason::NoLease));
        }
        for (name, noted_until) in [("over", NOW), ("long over", NOW - SECOND), ("witnessed", 0)] {
            let subject = subject.awaiting(b"another").but(|flow| {
                flow.lease_until = 0;
                flow.noted_until = noted_until;
            });
            let draft = Draft::received(name, &subject, subject.packet(DATA).build());
            cases.push(noted(draft.passes(Reason::NoLease), DATA));
        }
    }
    cases
}

/// A lease holds until its last nanosecond; then the first packet reports its end and is noted.
pub fn a_lease_lapses_and_says_so_once() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let lasts = subject.but(|flow| flow.lease_until = NOW + 1);
        let frame = subject.packet(DATA).build();
        cases.push(Draft::received("the last nanosecond", &lasts, frame.clone()).relayed());
        for (name, lease_until) in [("over", NOW), ("long over", 1)] {
            let over = subject.but(|flow| flow.lease_until = lease_until);
            let case = Draft::received(name, &over, frame.clone()).passes(Reason::NoLease);
            let case = case.leaves(|flow| flow.lease_until = 0);
            cases.push(noted(case, DATA).reports(kind::LAPSED));
        }
        let said = subject.but(|flow| flow.lease_until = 0);
        cases.push(noted(Draft::received("said before", &said, frame).passes(Reason::NoLease), DATA));
    }
    cases
}

/// One packet per heartbeat goes to the server, and is noted whatever was noted before.
pub fn a_heartbeat_spills_one_packet() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let frame = subject.packet(DATA).build();
        let early = subject.but(|flow| flow.heartbeat_at = NOW + 1);
        cases.push(Draft::received("not yet due", &early, frame.clone()).relayed());
        for (name, heartbeat_at) in [("due", NOW), ("overdue", NOW - SECOND)] {
            let due = subject.awaiting(b"another").but(|flow| flow.heartbeat_at = heartbeat_at);
            let case = Draft::received(name, &due, frame.clone()).passes(Reason::Heartbeat);
            cases.push(noted(case, DATA).leaves(|flow| flow.heartbeat_at = NOW + 3 * SECOND));
        }
        let last_hop = subject.but(|flow| flow.heartbeat_at = NOW);
        let frame = subject.packet(DATA).hop_limit(1).udp_checksum(UdpChecksum::Corrupt(1)).build();
        let case = Draft::received("any packet does", &last_hop, frame).passes(Reason::Heartbeat);
        cases.push(noted(case, DATA).leaves(|flow| flow.heartbeat_at = NOW + 3 * SECOND));
    }
    cases
}

/// A packet that is noted brings the way by which it came, also where the lease says another one.
pub fn a_noted_packet_brings_its_way_in() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let moved = subject.but(|flow| {
            flow.heartbeat_at = NOW;
            flow.in_ifindex = ELSEWHERE;
            flow.in_mac = mac(CLIENT_MAC);
        });
        let frame = subject.packet(DATA).macs(RELAYED_MAC, CLIENT_MAC).build();
        let case = Draft::received("heartbeat", &moved, frame.clone()).passes(Reason::Heartbeat);
        let case = noted(case, DATA).leaves(|flow| {
            flow.heartbeat_at = NOW + 3 * SECOND;
            flow.noted_mac = mac(RELAYED_MAC);
        });
        cases.push(case);
        let unarmed = moved.but(|flow| flow.lease_until = 0);
        let case = Draft::received("no lease", &unarmed, frame).passes(Reason::NoLease);
        cases.push(noted(case, DATA).leaves(|flow| flow.noted_mac = mac(RELAYED_MAC)));
    }
    cases
}

/// The case leaves its packet noted.
fn noted(case: Case, data: &[u8]) -> Case {
    case.leaves(|flow| {
        flow.noted_fingerprint = print(data);
        flow.noted_ifindex = HERE;
        flow.noted_mac = mac(SERVER_MAC);
        flow.noted_until = NOW + 100 * MILLISECOND;
    })
}
