//! Lengths and padding of ChannelData messages, and of the datagrams that become such.

use turn_datapath::Reason;

use super::Case;
use super::draft::Draft;
use super::subject::{DATA, Subject, data};
use crate::packet::{Packet, UdpChecksum};

/// Golden lengths, in every direction.
pub fn fr17_lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for length in [0, 1, 2, 3, 4, 5, 6, 7, 8, 31, 32, 33, 1199, 1200, 1201, 1400] {
            let frame = subject.packet(&data(length)).build();
            cases.push(Draft::received(format!("{length} bytes"), &subject, frame).relayed());
        }
    }
    cases
}

/// A peer's empty datagram becomes an empty ChannelData message, and that an empty datagram.
pub fn pr8_cd7_empty_datagrams_are_relayed() -> Vec<Case> {
    Subject::all()
        .iter()
        .map(|subject| Draft::received("empty", subject, subject.packet(&[]).build()).relayed())
        .collect()
}

/// The message says that it is longer than the datagram.
pub fn cd1_messages_longer_than_their_datagram_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for length in [0, 1, 4, 19, 1200] {
            for excess in [1, 2, 3, 4, 100, 60000] {
                let frame = declared(&subject, length + excess, &data(length));
                let name = format!("{length} bytes declared as {}", length + excess);
                cases.push(Draft::received(name, &subject, frame).passes(Reason::ChannelDataLength));
            }
        }
    }
    cases
}

/// Padding to a multiple of four bytes, zeros or not, is stripped and leaves the checksum.
pub fn cd2_padding_is_stripped() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for length in [1_usize, 2, 3, 5, 6, 7, 19, 1199, 1201, 1202] {
            let missing = length.next_multiple_of(4) - length;
            for padding in [[0, 0, 0], [0xff, 0xff, 0xff], [1, 2, 3], [0, 0, 0x80], [0xfe, 0, 1]] {
                let padding = &padding[..missing];
                let packet = subject.padded(&data(length), padding);
                for trailer in [&[][..], &[9, 9, 9]] {
                    let frame = packet.clone().trailer(trailer).build();
                    let name = format!("{length} bytes, padding {padding:?}, trailer {trailer:?}");
                    cases.push(Draft::received(name, &subject, frame).relayed());
                }
            }
        }
    }
    cases
}

/// Padding is stripped also where there is no checksum to keep.
pub fn cd2_padding_is_stripped_without_a_checksum() -> Vec<Case> {
    Subject::from_clients()
        .iter()
        .filter(|subject| subject.input.source.is_ipv4() && subject.output.source.is_ipv4())
        .map(|subject| {
            let packet = subject.padded(&data(5), &[7, 8, 9]).udp_checksum(UdpChecksum::Zero);
            Draft::received("no checksum", subject, packet.build()).relayed()
        })
        .collect()
}

/// Anything else behind the message.
pub fn cd3_other_excess_passes() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for length in [0_usize, 1, 2, 3, 4, 5, 19, 1200] {
            let right = length.next_multiple_of(4) - length;
            for excess in (1..=8).chain([100]).filter(|excess| *excess != right) {
                let frame = subject.padded(&data(length), &vec![0; excess]).build();
                let name = format!("{length} bytes, {excess} behind");
                cases.push(Draft::received(name, &subject, frame).passes(Reason::ChannelDataLength));
            }
        }
    }
    cases
}

/// Toward clients there is no padding, and the declared length is the datagram's.
pub fn pr5_no_padding_is_added() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::to_client() {
        for length in 1..8 {
            let frame = subject.packet(&data(length)).build();
            let case = Draft::received(format!("{length} bytes"), &subject, frame).relayed();
            let message = &case.outcome.frame[case.outcome.frame.len() - length - 4..];
            assert_eq!(message[2..4], (length as u16).to_be_bytes(), "{}", case.name);
            cases.push(case);
        }
    }
    cases
}

/// Wrong lengths neither use up a heartbeat nor end a lease that is over: the server answers for them.
pub fn wrong_lengths_leave_the_flow_alone() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for (name, heartbeat_at, lease_until) in
            [("heartbeat due", super::NOW, super::NOW + 1), ("lease over", 1, super::NOW), ("no lease", 0, 0)]
        {
            let subject = subject.but(|flow| {
                flow.heartbeat_at = heartbeat_at;
                flow.lease_until = lease_until;
            });
            let frame = declared(&subject, DATA.len() + 1, DATA);
            cases.push(Draft::received(name, &subject, frame).passes(Reason::ChannelDataLength));
        }
    }
    cases
}

fn declared(subject: &Subject, length: usize, data: &[u8]) -> Vec<u8> {
    let channel = subject.input.channel.expect("a client's flow");
    let payload = [&channel.to_be_bytes(), &(length as u16).to_be_bytes(), data].concat();
    Packet::new(subject.input.source, subject.input.destination).payload(&payload).build()
}
