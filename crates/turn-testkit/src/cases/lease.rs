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

/// Without a lease the last packet in a row is the noted one, up to 256 behind the first; who is not seen coming out
/// within 100 ms is the first of no row.
pub fn without_a_lease_the_last_packet_is_noted() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let frame = subject.packet(DATA).build();
        let unarmed = subject.awaiting(b"another").but(|flow| flow.lease_until = 0);
        for (name, in_a_row) in [("the second", 0), ("the last that may be", 255)] {
            let behind = unarmed.but(|flow| flow.noted_in_a_row = in_a_row);
            let case = Draft::received(name, &behind, frame.clone()).passes(Reason::NoLease);
            cases.push(noted(case, DATA).leaves(|flow| flow.noted_in_a_row = in_a_row + 1));
        }
        let too_many = unarmed.but(|flow| flow.noted_in_a_row = 256);
        cases.push(Draft::received("too many", &too_many, frame.clone()).passes(Reason::NoLease));
        for (name, noted_until) in [("over", NOW), ("long over", NOW - SECOND), ("witnessed", 0)] {
            let first = too_many.but(|flow| flow.noted_until = noted_until);
            let case = Draft::received(name, &first, frame.clone()).passes(Reason::NoLease);
            cases.push(noted(case, DATA).leaves(|flow| flow.noted_in_a_row = 0));
        }
    }
    cases
}

/// While a heartbeat's packet has not come out of the server, those behind it do not overtake it; but they wait for
/// 32 packets and 100 ms at the most.
pub fn packets_behind_a_heartbeat_do_not_overtake_it() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let frame = subject.packet(DATA).build();
        let awaiting = subject.awaiting(b"another");
        for (name, in_a_row) in [("the first behind it", 0), ("the last behind it", 31)] {
            let behind = awaiting.but(|flow| flow.noted_in_a_row = in_a_row);
            let case = Draft::received(name, &behind, frame.clone()).passes(Reason::Behind);
            cases.push(noted(case, DATA).leaves(|flow| flow.noted_in_a_row = in_a_row + 1));
        }
        let too_many = awaiting.but(|flow| flow.noted_in_a_row = 32);
        cases.push(Draft::received("too many", &too_many, frame.clone()).relayed());
        for (name, noted_until) in [("too long", NOW), ("come out", 0)] {
            let free = awaiting.but(|flow| flow.noted_until = noted_until);
            cases.push(Draft::received(name, &free, frame.clone()).relayed());
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
pub(super) fn noted(case: Case, data: &[u8]) -> Case {
    case.leaves(|flow| {
        flow.noted_fingerprint = print(data);
        flow.noted_ifindex = HERE;
        flow.noted_mac = mac(SERVER_MAC);
        flow.noted_until = NOW + 100 * MILLISECOND;
    })
}
