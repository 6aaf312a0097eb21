//! Frames that are not a whole, plain UDP datagram, and where the datagram ends in the frame.

use turn_datapath::Reason;

use super::Case;
use super::draft::Draft;
use super::subject::{DATA, Subject, data};
use crate::packet::{TPID_8021AD, TPID_8021Q};

/// Offset of the network header.
const NETWORK: usize = 14;

/// Neither IPv4 nor IPv6.
pub fn frames_that_are_not_ip_pass() -> Vec<Case> {
    let subject = &Subject::all()[0];
    [0x0806_u16, 0x0000, 0x002e, 0x8847, 0x88cc, 0xffff]
        .into_iter()
        .map(|ethertype| {
            let mut frame = subject.packet(DATA).build();
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            Draft::received(format!("EtherType {ethertype:#06x}"), subject, frame).passes(Reason::NotIp)
        })
        .collect()
}

/// Three tags and more, of any kind.
pub fn frames_with_more_than_two_vlan_tags_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for number in 3..6 {
            for first in [TPID_8021AD, TPID_8021Q] {
                for last in [TPID_8021AD, TPID_8021Q] {
                    let packet = subject.packet(DATA).tag(first, 5);
                    let packet = (2..number).fold(packet, |packet, tag| packet.tag(TPID_8021Q, tag));
                    let name = format!("{number} tags, {first:#06x} to {last:#06x}");
                    let frame = packet.tag(last, 9).build();
                    cases.push(Draft::received(name, &subject, frame).passes(Reason::VlanTagged));
                }
            }
        }
    }
    cases
}

/// TCP, ICMP, UDP-Lite and others with the same bytes behind the header.
pub fn other_protocols_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for protocol in [1, 2, 4, 6, 41, 47, 58, 132, 136, 255] {
            let frame = subject.packet(DATA).protocol(protocol).build();
            let name = format!("protocol {protocol}");
            cases.push(Draft::received(name, &subject, frame).passes(Reason::NotUdp));
        }
    }
    cases
}

/// Every length of options.
pub fn ip15_ipv4_options_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in over_ipv4() {
        for length in (4..=40).step_by(4) {
            let frame = subject.packet(DATA).options(&vec![1; length]).build();
            let name = format!("{length} bytes of options");
            cases.push(Draft::received(name, &subject, frame).passes(Reason::Ipv4Options));
        }
    }
    cases
}

/// Hop-by-hop, routing, fragment, authentication, destination options, mobility.
pub fn ip16_extension_headers_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in over_ipv6() {
        for header in [0, 43, 44, 51, 60, 135] {
            let frame = subject.packet(DATA).extension(header, &[0; 8]).build();
            let name = format!("extension header {header}");
            cases.push(Draft::received(name, &subject, frame).passes(Reason::NotUdp));
        }
    }
    cases
}

/// First, middle and last fragments, with DF and without.
pub fn fragments_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in over_ipv4() {
        for (more, offset) in [(true, 0), (true, 1), (false, 1), (false, 0x100), (false, 0x1fff)] {
            for has_df in [false, true] {
                let frame = subject.packet(DATA).fragment(more, offset).dont_fragment(has_df).build();
                let name = format!("MF {more}, offset {offset}, DF {has_df}");
                cases.push(Draft::received(name, &subject, frame).passes(Reason::Fragment));
            }
        }
    }
    cases
}

/// The first bit of the IPv4 flags has no meaning and has to be zero.
pub fn the_reserved_ipv4_flag_passes() -> Vec<Case> {
    over_ipv4()
        .map(|subject| {
            let frame = subject.packet(DATA).reserved_flag().build();
            Draft::received("reserved flag", &subject, frame).passes(Reason::Malformed)
        })
        .collect()
}

/// Every single wrong bit.
pub fn ip18_a_wrong_ipv4_header_checksum_passes() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in over_ipv4() {
        for bit in 0..16 {
            let frame = subject.packet(DATA).corrupt_header_checksum(1 << bit).build();
            let name = format!("bit {bit}");
            cases.push(Draft::received(name, &subject, frame).passes(Reason::Malformed));
        }
    }
    cases
}

/// The version in the header is another one than the EtherType says.
pub fn a_version_that_contradicts_the_ethertype_passes() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let frame = subject.packet(DATA).build();
        let version = frame[NETWORK] >> 4;
        for other in (0..16).filter(|other| *other != version) {
            let mut frame = frame.clone();
            frame[NETWORK] = other << 4 | frame[NETWORK] & 0x0f;
            let name = format!("version {other}");
            cases.push(Draft::received(name, &subject, frame).passes(Reason::Malformed));
        }
    }
    cases
}

/// IPv4-mapped addresses in an IPv6 header would be taken for IPv4 addresses.
pub fn ipv4_mapped_addresses_on_the_wire_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    let [v4, v6] = [&Subject::to_peer()[0], &Subject::to_peer()[3]];
    for (name, at) in [("source", NETWORK + 8), ("destination", NETWORK + 24)] {
        let mut frame = v6.packet(DATA).build();
        frame[at..at + 12].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        frame[at + 12..at + 16].copy_from_slice(&[198, 18, 1, 2]);
        cases.push(Draft::received(name, v4, frame).passes(Reason::Malformed));
    }
    cases
}

/// IP length, UDP length and the length of the frame contradict each other, or leave a surplus behind the datagram.
pub fn cd8_lengths_that_contradict_each_other_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let packet = subject.packet(&data(100));
        let udp = packet.build().len() - NETWORK - if subject.input.source.is_ipv4() { 20 } else { 40 };
        let ip = if subject.input.source.is_ipv4() { udp + 20 } else { udp };
        let mut row = |name: &str, packet: crate::packet::Packet| {
            cases.push(Draft::received(name, &subject, packet.build()).passes(Reason::Malformed));
        };
        for by in [-100, -8, -1, 1, 4, 8, 1000] {
            let [ip, udp] = [ip, udp].map(|length| (length as i32 + by) as u16);
            row(&format!("IP length {by:+}"), packet.clone().ip_length(ip));
            row(&format!("UDP length {by:+}"), packet.clone().udp_length(udp));
            if by > 0 {
                let both = packet.clone().ip_length(ip).udp_length(udp);
                row(&format!("both {by:+}, frame ends before"), both);
            }
        }
        for length in [0, 7, 0xffff] {
            row(&format!("UDP length {length}"), packet.clone().udp_length(length));
            row(&format!("IP length {length}"), packet.clone().ip_length(length));
            let header = if subject.input.source.is_ipv4() { 20 } else { 0 };
            let both = packet.clone().udp_length(length).ip_length(length.wrapping_add(header));
            row(&format!("both say {length}"), both);
        }
        for length in [1, 4, 20] {
            row(&format!("{length} bytes of surplus"), packet.clone().surplus(&vec![0; length]));
        }
    }
    cases
}

/// Every frame that ends too early.
pub fn truncated_frames_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let frame = subject.packet(DATA).build();
        for length in 0..frame.len() {
            let reason = if length < NETWORK { Reason::NotIp } else { Reason::Malformed };
            let name = format!("{length} of {} bytes", frame.len());
            cases.push(Draft::received(name, &subject, frame[..length].to_vec()).passes(reason));
        }
    }
    cases
}

/// Short frames are filled up to 60 bytes, and not always with zeros.
pub fn cd7_the_trailer_of_a_short_frame_is_not_data() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for length in 0..20 {
            for filler in [0x00, 0xff, 0x5a] {
                let packet = subject.packet(&data(length));
                let missing = 60_usize.saturating_sub(packet.build().len());
                // Longer frames get a trailer too: some switches and taps append one.
                let trailer = vec![filler; if missing == 0 { 7 } else { missing }];
                let frame = packet.trailer(&trailer).build();
                let name = format!("{length} bytes, trailer of {} x {filler:#04x}", trailer.len());
                cases.push(Draft::received(name, &subject, frame).relayed());
            }
        }
    }
    cases
}

fn over_ipv4() -> impl Iterator<Item = Subject> {
    Subject::all().into_iter().filter(|subject| subject.input.source.is_ipv4())
}

fn over_ipv6() -> impl Iterator<Item = Subject> {
    Subject::all().into_iter().filter(|subject| subject.input.source.is_ipv6())
}
