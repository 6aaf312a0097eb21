//! Ways in, ways out, and what fits through them.

use turn_datapath::Reason;
use turn_datapath::flow::path_flags;

use super::draft::Draft;
use super::subject::{DATA, MTU, Subject, data, mac};
use super::{Case, ELSEWHERE, FIRST_PART};
use crate::role::{CLIENT_MAC, RELAYED_MAC, SERVER_MAC};

/// Frames for another machine, and frames that came by another interface than those that the server answered.
pub fn op9_frames_by_another_way_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let macs = [
            ("another machine's", RELAYED_MAC),
            ("broadcast", [0xff; 6]),
            ("multicast", [0x01, 0, 0x5e, 0, 0, 1]),
            ("first byte", [0x00, 0, 0, 0, 0, 0x05]),
            ("last byte", [0x02, 0, 0, 0, 0, 0x04]),
        ];
        for (name, destination) in macs {
            let frame = subject.packet(DATA).macs(destination, CLIENT_MAC).build();
            cases.push(Draft::received(name, &subject, frame).passes(Reason::OtherPath));
        }
        let elsewhere = subject.but(|flow| flow.in_ifindex = ELSEWHERE);
        let frame = subject.packet(DATA).build();
        cases.push(Draft::received("interface", &elsewhere, frame).passes(Reason::OtherPath));
    }
    cases
}

/// The sender's MAC address does not matter: it may be any router's.
pub fn the_senders_mac_address_does_not_matter() -> Vec<Case> {
    Subject::all()
        .iter()
        .map(|subject| {
            let frame = subject.packet(DATA).macs(SERVER_MAC, [0x02, 9, 9, 9, 9, 9]).build();
            Draft::received("another router", subject, frame).relayed()
        })
        .collect()
}

/// By the MTU of the way out, to the byte.
pub fn ip9_packets_that_outgrow_the_mtu_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let overhead = subject.servers(&[]).build().len() - 14;
        for mtu in [1280, 1400, MTU, 3000] {
            let subject = subject.but(|flow| (flow.out_mtu, flow.link_mtu) = (mtu, mtu));
            let fits = usize::from(mtu) - overhead;
            for length in fits - 4..=fits + 4 {
                let frame = subject.packet(&data(length)).build();
                let draft = Draft::received(format!("MTU {mtu}, {length} bytes"), &subject, frame);
                let fits = length <= fits;
                cases.push(if fits { draft.relayed() } else { draft.passes(Reason::TooBig) });
            }
        }
        let none = subject.but(|flow| (flow.out_mtu, flow.link_mtu) = (0, 0));
        let frame = subject.packet(&[]).build();
        cases.push(Draft::received("no MTU known", &none, frame).passes(Reason::TooBig));
    }
    cases
}

/// Longer than any MTU of Ethernet, up to the longest datagram there is.
pub fn pr6_jumbo_packets_pass_or_fit() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let subject = subject.but(|flow| (flow.out_mtu, flow.link_mtu) = (u16::MAX, u16::MAX));
        let overhead = subject.servers(&[]).build().len() - 14;
        let head = if subject.input.channel.is_some() { 4 } else { 0 };
        let ip_header = if subject.input.source.is_ipv4() { 20 } else { 0 };
        let longest = usize::from(u16::MAX) - 8 - head - ip_header;
        let lengths = [3400, 9000, 32767, 65000, 65400, longest - 1, longest];
        for length in lengths.into_iter().filter(|length| *length <= longest) {
            let frame = subject.packet(&data(length)).build();
            let draft = Draft::received(format!("{length} bytes"), &subject, frame);
            let fits = length + overhead <= usize::from(u16::MAX);
            cases.push(if fits { draft.relayed() } else { draft.passes(Reason::TooBig) });
        }
    }
    cases
}

/// A frame that lies in several parts is redirected only where the way out takes such frames.
pub fn jumbo_packets_are_redirected_to_what_takes_them() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let elsewhere = subject.but(|flow| {
            (flow.out_mtu, flow.link_mtu) = (9000, 9000);
            flow.out_ifindex = ELSEWHERE;
        });
        let overhead = elsewhere.packet(&[]).build().len();
        for length in [FIRST_PART - overhead, FIRST_PART - overhead + 1, 8000] {
            let is_whole = overhead + length <= FIRST_PART;
            for takes in [false, true] {
                let by = if takes { path_flags::REDIRECT_PARTS } else { 0 };
                let subject = elsewhere.but(|flow| flow.path_flags |= by);
                let name = format!("{length} bytes, parts {takes}");
                let draft = Draft::received(name, &subject, subject.packet(&data(length)).build());
                let goes = takes || is_whole;
                cases.push(if goes { draft.redirected() } else { draft.passes(Reason::CannotRedirect) });
            }
        }
    }
    cases
}

/// Padding and trailers beyond the first part are taken off as others are.
pub fn cd2_padding_of_jumbo_packets_is_stripped() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let subject = subject.but(|flow| (flow.out_mtu, flow.link_mtu) = (u16::MAX, u16::MAX));
        for length in (8000..8004).chain(FIRST_PART - 80..FIRST_PART).chain(40_001..40_004) {
            let missing = length.next_multiple_of(4) - length;
            let padding =
                [0xff; 3].split_at(if subject.input.channel.is_some() { missing } else { 0 }).0.to_vec();
            for trailer in [&[][..], &[0x5a; 7]] {
                let packet = subject.padded(&data(length), &padding).trailer(trailer);
                let frame = packet.build();
                // Where the first part ends with the datagram, the rest is not looked for.
                if frame.len() - trailer.len() == FIRST_PART && !trailer.is_empty() {
                    continue;
                }
                let name = format!("{length} bytes, {} and {} behind", padding.len(), trailer.len());
                cases.push(Draft::received(name, &subject, frame).relayed());
            }
        }
    }
    cases
}

/// An IPv4 packet that may be fragmented becomes an IPv6 packet of at most 1280 bytes, or the server cuts it.
pub fn ip10_fragmentable_packets_become_small_ipv6_packets() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let overhead = subject.servers(&[]).build().len() - 14;
        for length in 1280 - overhead - 4..=1280 - overhead + 4 {
            for has_df in [false, true] {
                let frame = subject.packet(&data(length)).dont_fragment(has_df).build();
                let draft = Draft::received(format!("{length} bytes, DF {has_df}"), &subject, frame);
                let is_4_to_6 = subject.input.source.is_ipv4() && subject.output.source.is_ipv6();
                let is_too_big = is_4_to_6 && !has_df && length + overhead > 1280;
                cases.push(if is_too_big { draft.passes(Reason::TooBig) } else { draft.relayed() });
            }
        }
    }
    cases
}

/// Out by another interface, where that takes redirected frames.
pub fn packets_leave_by_the_witnesss_interface() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let elsewhere = subject.but(|flow| flow.out_ifindex = ELSEWHERE);
        let frame = || elsewhere.packet(DATA).build();
        cases.push(Draft::received("redirected", &elsewhere, frame()).redirected());

        let draft = Draft::received("not in the device map", &elsewhere, frame());
        let draft = draft.setting(|setting| setting.devices.retain(|ifindex| *ifindex != ELSEWHERE));
        cases.push(draft.passes(Reason::CannotRedirect));

        let cannot = elsewhere.but(|flow| flow.path_flags &= !path_flags::REDIRECT);
        cases.push(Draft::received("cannot transmit", &cannot, frame()).passes(Reason::CannotRedirect));

        let only = subject.but(|flow| flow.path_flags |= path_flags::ONLY_REDIRECT);
        cases.push(Draft::received("back out of the same by redirect", &only, frame()).redirected());
        let neither = only.but(|flow| flow.path_flags &= !path_flags::REDIRECT);
        let draft = Draft::received("back out of the same by neither", &neither, frame());
        cases.push(draft.passes(Reason::CannotRedirect));

        let same = subject.but(|flow| flow.path_flags &= !path_flags::REDIRECT);
        let draft = Draft::received("back out of the same", &same, frame());
        cases.push(draft.setting(|setting| setting.devices.clear()).relayed());
    }
    cases
}

/// What the daemon knows of interfaces counts when a lease is granted, not for every packet.
pub fn a_lease_holds_though_the_interface_is_forgotten() -> Vec<Case> {
    Subject::all()
        .iter()
        .map(|subject| {
            let draft = Draft::received("no interfaces", subject, subject.packet(DATA).build());
            draft.setting(|setting| setting.interfaces.clear()).relayed()
        })
        .collect()
}

/// The MAC addresses of what leaves are the witness's.
pub fn what_leaves_has_the_witnesss_mac_addresses() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let [destination, source] =
            [[0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc], [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54]];
        let moved = subject.but(|flow| {
            flow.out_mac_destination = mac(destination);
            flow.out_mac_source = mac(source);
        });
        let frame = moved.packet(DATA).build();
        let case = Draft::received("other MAC addresses", &moved, frame).relayed();
        assert_eq!(case.outcome.frame[..12], [destination, source].concat(), "{}", case.name);
        cases.push(case);
    }
    cases
}
