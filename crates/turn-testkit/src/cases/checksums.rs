//! The UDP checksum of packets that are relayed.

use turn_datapath::Reason;

use super::Case;
use super::draft::Draft;
use super::subject::{DATA, Subject, data};
use crate::dissect::{Checksum, dissect};
use crate::packet::UdpChecksum;

/// Where a sender computed none, none is sent over IPv4. Over IPv6 there has to be one, and then the server computes it.
pub fn ip17_a_missing_checksum_stays_missing() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let frame = subject.packet(DATA).udp_checksum(UdpChecksum::Zero).build();
        let draft = Draft::received("no checksum", &subject, frame);
        let is_relayed = subject.input.source.is_ipv4() && subject.output.source.is_ipv4();
        cases.push(if is_relayed { draft.relayed() } else { draft.passes(Reason::NoChecksum) });
    }
    cases
}

/// What was wrong stays wrong by as much: the receiver finds out, and never gets damaged data that look whole.
pub fn ip17_a_wrong_checksum_stays_wrong() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for mask in [0x0001, 0x0100, 0x8000, 0x1234, 0x7fff] {
            let packet =
                subject.padded(&data(17), if subject.input.channel.is_some() { &[1, 2, 3] } else { &[] });
            let frame = packet.clone().udp_checksum(UdpChecksum::Corrupt(mask)).build();
            let due = due_with_error(&subject, &packet.build(), &frame);
            let is_wrong = matches!(dissect(&due).unwrap().udp_checksum, Checksum::Wrong { .. });
            assert!(is_wrong, "{} {mask:#06x}", subject.name());
            cases.push(Draft::received(format!("wrong by {mask:#06x}"), &subject, frame).becomes(due));
        }
    }
    cases
}

/// A sum that comes out as zero is sent as all ones, since zero says that there is none. The same in what comes in.
pub fn ip17_a_sum_of_zero_is_sent_as_all_ones() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for length in [2, 3, 18, 19] {
            let whole = |data: &[u8]| subject.packet(data).build();
            let mut leaves_zero = data(length);
            let due = subject.due(&whole(&leaves_zero)).expect("the oracle relays it");
            let found = field(&due, subject.output.source.is_ipv4());
            absorb(&mut leaves_zero, found);
            let case =
                Draft::received(format!("{length} bytes, leaves"), &subject, whole(&leaves_zero)).relayed();
            assert_eq!(field(&case.outcome.frame, subject.output.source.is_ipv4()), 0xffff, "{}", case.name);
            cases.push(case);

            let mut comes_zero = data(length);
            let found = field(&whole(&comes_zero), subject.input.source.is_ipv4());
            absorb(&mut comes_zero, found);
            let frame = whole(&comes_zero);
            assert_eq!(field(&frame, subject.input.source.is_ipv4()), 0xffff);
            cases.push(Draft::received(format!("{length} bytes, comes"), &subject, frame).relayed());
        }
    }
    cases
}

/// Data that come close to a carry in every word.
pub fn ip17_extreme_data_keep_a_right_checksum() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for byte in [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff] {
            for length in [0, 1, 2, 3, 64, 65, 1399, 1400] {
                let frame = subject.packet(&vec![byte; length]).build();
                let name = format!("{length} x {byte:#04x}");
                cases.push(Draft::received(name, &subject, frame).relayed());
            }
        }
    }
    cases
}

/// A checksum that was left to a device that the packet never met.
pub fn partial_checksums_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for length in [0, 1, 19, 1200] {
            let packet = subject.packet(&data(length)).udp_checksum(UdpChecksum::Partial);
            let draft = Draft::received(format!("{length} bytes"), &subject, packet.build());
            cases.push(draft.passes(Reason::PartialChecksum));
        }
        // Neither a heartbeat nor an end of the lease: nothing can be told from such a packet.
        let due = subject.but(|flow| flow.heartbeat_at = 0);
        let over = subject.but(|flow| flow.lease_until = 1);
        for (name, subject) in [("heartbeat due", due), ("lease over", over)] {
            let frame = subject.packet(DATA).udp_checksum(UdpChecksum::Partial).build();
            cases.push(Draft::received(name, &subject, frame).passes(Reason::PartialChecksum));
        }
    }
    cases
}

/// What has to come out for a frame with a wrong checksum that else is `right`: the same as for the right one, wrong by the
/// same amount in one's complement.
pub fn due_with_error(subject: &Subject, right: &[u8], wrong: &[u8]) -> Vec<u8> {
    let mut due = subject.due(right).expect("the oracle relays it");
    let [is_v4, out_is_v4] = [subject.input.source, subject.output.source].map(|address| address.is_ipv4());
    let error = sum(!field(wrong, is_v4), field(right, is_v4));
    let corrupted = match !sum(!field(&due, out_is_v4), error) {
        0 => 0xffff,
        checksum => checksum,
    };
    let at = field_at(out_is_v4);
    due[at..at + 2].copy_from_slice(&corrupted.to_be_bytes());
    due
}

/// Changes two bytes of the data so that a checksum which was `found` becomes zero, which is sent as all ones.
fn absorb(data: &mut [u8], found: u16) {
    let word = u16::from_be_bytes([data[0], data[1]]);
    data[..2].copy_from_slice(&sum(word, found).to_be_bytes());
}

fn field(frame: &[u8], is_v4: bool) -> u16 {
    let at = field_at(is_v4);
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn field_at(is_v4: bool) -> usize {
    14 + if is_v4 { 20 } else { 40 } + 6
}

/// In one's complement.
fn sum(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}
