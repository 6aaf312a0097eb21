//! Packets that are too big for a later hop: what the server's own packets show of it, and what routers say.

use turn_datapath::control::kind;
use turn_datapath::{Flow, Interface, PathMtu, Reason};
use turn_wire::Be16;

use super::draft::Draft;
use super::lease::noted;
use super::subject::{DATA, MTU, Subject, data};
use super::witness::{armed, unarmed};
use super::{Case, NOW, SECOND};
use crate::checksum::internet_checksum;
use crate::packet::{Packet, TPID_8021Q};

const ETHERNET: usize = 14;

/// Longer than what was seen and not longer than the interface takes: it goes to the server, and others wait until it has come
/// out. The daemon is asked what the path takes once per heartbeat.
pub fn sd6_packets_longer_than_any_that_was_seen_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let overhead = subject.servers(&[]).build().len() - ETHERNET;
        for mtu in [1280, 1400, 1499] {
            for length in [usize::from(mtu) - overhead, usize::from(mtu) + 1 - overhead, 1500 - overhead] {
                let frame = subject.packet(&data(length)).build();
                for (name, longer_at) in [("now", NOW), ("not yet", NOW + 1)] {
                    let subject = subject.but(|flow| (flow.out_mtu, flow.longer_at) = (mtu, longer_at));
                    let name = format!("{length} bytes of {mtu}, {name}");
                    let draft = Draft::received(name, &subject, frame.clone());
                    cases.push(match length + overhead <= usize::from(mtu) {
                        true => draft.relayed(),
                        false if longer_at > NOW => {
                            noted(draft.passes(Reason::LongerThanSeen), &data(length))
                        }
                        false => noted(draft.passes(Reason::LongerThanSeen), &data(length))
                            .leaves(|flow| flow.longer_at = NOW + 3 * SECOND)
                            .reports(kind::LONGER),
                    });
                }
            }
            let more = subject.but(|flow| flow.out_mtu = mtu).packet(&data(1501 - overhead)).build();
            cases.push(
                Draft::received("more than the interface takes", &subject, more).passes(Reason::TooBig),
            );
        }
    }
    cases
}

/// What the kernel's routing says counts where it answers the flow's last question, not too late, and nothing was seen since.
pub fn sd6_routing_says_how_much_fits() -> Vec<Case> {
    let mut cases = Vec::new();
    let asked_at = NOW - SECOND;
    for subject in Subject::all() {
        let overhead = subject.servers(&[]).build().len() - ETHERNET;
        let subject = subject.but(|flow| (flow.out_mtu, flow.longer_at) = (1280, asked_at + 3 * SECOND));
        for (name, asked_at, mtu, length, fits) in [
            ("in time", asked_at, 1500, 1500, true),
            ("less than the interface takes", asked_at, 1400, 1400, true),
            ("less than the packet", asked_at, 1400, 1401, false),
            ("more than the interface takes", asked_at, 70_000, 1500, true),
            ("another question", asked_at - 1, 1500, 1500, false),
            ("not looked at", asked_at, 1500, 1280, true),
        ] {
            let frame = subject.packet(&data(length - overhead)).build();
            let draft = Draft::received(name, &subject, frame);
            let told = PathMtu { asked_at, mtu, reserved: 0 };
            let draft = draft.setting(|setting| setting.path_mtus.push((subject.key(), told)));
            let case = match fits {
                true => draft.relayed(),
                false => noted(draft.passes(Reason::LongerThanSeen), &data(length - overhead)),
            };
            let is_heeded = name != "another question" && name != "not looked at";
            cases.push(match is_heeded {
                true => case.leaves(|flow| {
                    flow.out_mtu = mtu.min(1500) as u16;
                    flow.out_mtu_until = NOW + 6 * SECOND;
                }),
                false => case,
            });
        }
        let long_ago = NOW - 7 * SECOND;
        let late = subject.but(|flow| flow.longer_at = long_ago + 3 * SECOND);
        let draft = Draft::received("too late", &late, late.packet(&data(1500 - overhead)).build());
        let told = PathMtu { asked_at: long_ago, mtu: 1500, reserved: 0 };
        let draft = draft.setting(|setting| setting.path_mtus.push((late.key(), told)));
        let case = noted(draft.passes(Reason::LongerThanSeen), &data(1500 - overhead));
        cases.push(case.leaves(|flow| flow.longer_at = NOW + 3 * SECOND).reports(kind::LONGER));
    }
    cases
}

/// What the server sends in one piece, it sends in one piece; and what hosts must believe to get through, until they see otherwise. When the
/// longest was seen so long ago that it does not count any more, the next one does, whatever its length.
pub fn sd6_a_witness_shows_how_much_fits() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let overhead = (subject.servers(&[]).build().len() - ETHERNET) as u16;
        let least = if subject.output.source.is_ipv4() { 552 } else { 1280 };
        for (before, length) in
            [(1400, 1300), (1400, 1400), (1400, 1401), (1400, 1500), (1400, 100), (100, 101), (100, 99)]
        {
            for is_long_ago in [false, true] {
                let data = data(usize::from(length.max(overhead) - overhead));
                let length = data.len() as u16 + overhead;
                let until = if is_long_ago { NOW } else { NOW + 1 };
                let subject = subject.awaiting(&data).but(|flow| {
                    (flow.out_mtu, flow.out_mtu_until, flow.longer_at) = (before, until, NOW + SECOND);
                });
                let name = format!("{length} bytes after {before}, long ago {is_long_ago}");
                let draft = Draft::sent(name, &subject, subject.servers(&data).build());
                cases.push(draft.passes(Reason::Witness).leaves(|flow| {
                    flow.lease_until = NOW + 10 * SECOND;
                    flow.noted_until = 0;
                    let shown = length.max(least);
                    if shown >= before || is_long_ago {
                        (flow.out_mtu, flow.out_mtu_until) = (shown, NOW + 7 * SECOND);
                    }
                    if is_long_ago {
                        flow.longer_at = NOW;
                    }
                }));
            }
        }
        let narrow = subject.awaiting(DATA).but(|flow| flow.out_mtu_until = 1);
        let draft =
            Draft::sent("an interface that takes less than that", &narrow, narrow.servers(DATA).build());
        let draft = draft.setting(|setting| {
            setting
                .interfaces
                .iter_mut()
                .for_each(|(_, interface)| *interface = Interface { mtu: 300, ..*interface });
        });
        cases.push(draft.passes(Reason::Witness).leaves(|flow| {
            flow.lease_until = NOW + 10 * SECOND;
            flow.noted_until = 0;
            (flow.link_mtu, flow.out_mtu, flow.out_mtu_until, flow.longer_at) =
                (300, 300, NOW + 7 * SECOND, NOW);
        }));
    }
    cases
}

/// What was seen on one way says nothing about another.
pub fn sd6_a_new_way_has_to_show_how_much_fits() -> Vec<Case> {
    unarmed()
        .iter()
        .map(|subject| {
            let known = |flow: &mut Flow| (flow.out_mtu, flow.out_mtu_until) = (MTU, NOW + 5 * SECOND);
            let subject = subject.awaiting(DATA).but(|flow| known(flow));
            let draft = Draft::sent("armed again", &subject, subject.servers(DATA).build());
            armed(draft.passes(Reason::Witness)).reports(kind::ARMED)
        })
        .collect()
}

/// The first fragment shows how much fits. It also shows that the server relays: that renews a lease, and grants none.
pub fn sd6_fragments_show_how_much_fits() -> Vec<Case> {
    let mut cases = Vec::new();
    let data = data(1400);
    for subject in Subject::all() {
        for (name, mtu) in [("1300", 1300), ("600", 600), ("less than hosts must believe", 300)] {
            for tags in 0..2 {
                let subject = subject.tagged(&[], &[]).awaiting(&data);
                let packet = subject.servers(&data).dont_fragment(false);
                let packet = if tags == 0 { packet } else { packet.tag(TPID_8021Q, 5) };
                let frame = first_fragment(&packet.build(), mtu);
                let length = (frame.len() - ETHERNET - 4 * tags) as u16;
                let shown = |flow: &mut Flow| {
                    flow.out_mtu = length;
                    flow.out_mtu_until = NOW + 7 * SECOND;
                    flow.longer_at = NOW + 10 * SECOND;
                };
                let draft = Draft::sent(format!("{name}, {tags} tags"), &subject, frame.clone());
                cases.push(draft.passes(Reason::EgressFragment).leaves(|flow| {
                    shown(flow);
                    flow.noted_until = 0;
                    // By another way it renews nothing.
                    if tags == 0 {
                        flow.lease_until = NOW + 10 * SECOND;
                    }
                }));
                let lapsed = subject.but(|flow| flow.lease_until = 0);
                let draft = Draft::sent(format!("{name}, no lease"), &lapsed, frame.clone());
                cases.push(draft.passes(Reason::EgressFragment).leaves(|flow| {
                    shown(flow);
                    flow.noted_until = 0;
                }));
                let other = subject.awaiting(DATA);
                let draft = Draft::sent(format!("{name}, of another packet"), &other, frame);
                cases.push(draft.passes(Reason::EgressFragment).leaves(shown));
            }
        }
    }
    cases
}

/// Only the first fragment says whose it is.
pub fn sd6_later_fragments_and_broken_ones_show_nothing() -> Vec<Case> {
    let mut cases = Vec::new();
    let data = data(1400);
    for subject in Subject::all() {
        let subject = subject.awaiting(&data);
        let first = first_fragment(&subject.servers(&data).dont_fragment(false).build(), 1300);
        let at = ETHERNET + if subject.output.source.is_ipv4() { 6 } else { 42 };
        let mut changes = vec![("later", at, 0x20_u8 | 1), ("last", at, 1)];
        if subject.output.source.is_ipv6() {
            changes = vec![("later", at, 1), ("last", at + 1, 8), ("atomic", at + 1, 0), ("TCP", at - 2, 6)];
        }
        for (name, at, byte) in changes {
            let mut frame = first.clone();
            frame[at] = byte;
            if subject.output.source.is_ipv4() {
                set_header_checksum(&mut frame);
            }
            cases.push(Draft::sent(name, &subject, frame).passes(Reason::EgressOther));
        }
        let cut = first[..ETHERNET + 40].to_vec();
        cases.push(Draft::sent("cut off", &subject, cut).passes(Reason::EgressOther));
    }
    cases
}

/// An ICMP error lowers what is relayed at once, and a longer packet may be tried a heartbeat later.
pub fn sd6_routers_say_how_much_fits() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let is_v4 = subject.output.source.is_ipv4();
        let least = if is_v4 { 552 } else { 1280 };
        let overhead = subject.servers(&[]).build().len() - ETHERNET;
        let quoted = subject.servers(&data(1450 - overhead)).build()[ETHERNET..].to_vec();
        for (said, heeded) in [
            (1300, 1300),
            (1449, 1449),
            (least, least),
            (100, least),
            // Routers that do not say, and such as say what cannot be.
            (0, 1449),
            (1450, 1449),
            (9000, 1449),
        ] {
            for rest in [0, 8, 500] {
                let headers = if is_v4 { 20 } else { 40 } + 8;
                let error = icmp_error(is_v4, said, &quoted[..headers + rest]);
                let subject = subject.but(|flow| flow.longer_at = NOW);
                let name = format!("{said}, {rest} bytes of data quoted");
                let draft = Draft::received(name, &subject, error);
                // Of a client's packet the channel has to be quoted.
                let is_known = subject.output.channel.is_none() || rest >= 4;
                cases.push(match is_known {
                    true => draft.passes(Reason::PathMtu).leaves(|flow| {
                        flow.out_mtu = heeded as u16;
                        flow.out_mtu_until = NOW + 7 * SECOND;
                        flow.longer_at = NOW + 3 * SECOND;
                    }),
                    false => draft.passes(Reason::NotUdp),
                });
            }
        }
        let error = icmp_error(is_v4, 1400, &quoted);
        let less = subject.but(|flow| flow.out_mtu = 1400);
        cases.push(Draft::received("known already", &less, error).passes(Reason::PathMtu));
    }
    cases
}

/// Other errors, and errors about packets that are nobody's.
pub fn a27_what_routers_say_of_nobodys_packets_means_nothing() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let is_v4 = subject.output.source.is_ipv4();
        let quoted = subject.servers(&data(1400)).build()[ETHERNET..].to_vec();
        let right = icmp_error(is_v4, 1300, &quoted);
        let mut row = |name: &str, at: usize, byte: u8| {
            let mut frame = right.clone();
            frame[at] ^= byte;
            cases.push(Draft::received(name, &subject, frame).passes(Reason::NotUdp));
        };
        let (icmp, inner) = if is_v4 { (ETHERNET + 20, 20) } else { (ETHERNET + 40, 40) };
        row("another type", icmp, 1);
        row("another code", icmp + 1, 1);
        row("not UDP that was sent", icmp + 8 + if is_v4 { 9 } else { 6 }, 1);
        row("another sender", icmp + 8 + inner - 1 - if is_v4 { 4 } else { 16 }, 1);
        row("another receiver", icmp + 8 + inner - 1, 1);
        row("another sender's port", icmp + 8 + inner + 1, 1);
        row("another receiver's port", icmp + 8 + inner + 3, 1);
        if subject.output.channel.is_some() {
            row("another channel", icmp + 8 + inner + 8 + 1, 1);
        }
        for length in [icmp, icmp + 7, icmp + 8 + inner, icmp + 8 + inner + 7] {
            let cut = right[..length].to_vec();
            cases.push(
                Draft::received(format!("cut off after {length} bytes"), &subject, cut)
                    .passes(Reason::NotUdp),
            );
        }
        let unknown = Draft::received("nobody's", &subject, right.clone());
        cases.push(unknown.setting(|setting| setting.expected.clear()).passes(Reason::NotUdp));
        let gone = Draft::received("of a flow that is gone", &subject, right);
        let gone = gone.setting(|setting| setting.expected[0].1.reserved = Be16::new(1));
        cases.push(gone.passes(Reason::NotUdp));
    }
    cases
}

/// The first of the fragments that a host makes of this frame for a path with this MTU.
pub(super) fn first_fragment(frame: &[u8], mtu: usize) -> Vec<u8> {
    const IPV6: usize = 40;
    const IPV4: usize = 20;
    let tags = 4 * usize::from(frame[12..14] == TPID_8021Q.to_be_bytes());
    let (link, ip) = frame.split_at(ETHERNET + tags);
    let mut fragment = link.to_vec();
    if ip[0] >> 4 == 6 {
        let room = (mtu - IPV6 - 8) / 8 * 8;
        fragment.extend(&ip[..4]);
        fragment.extend((room as u16 + 8).to_be_bytes());
        fragment.extend([44, ip[7]]);
        fragment.extend(&ip[8..IPV6]);
        fragment.extend([ip[6], 0, 0, 1, 1, 2, 3, 4]);
        fragment.extend(&ip[IPV6..IPV6 + room]);
    } else {
        let room = (mtu - IPV4) / 8 * 8;
        fragment.extend(&ip[..2]);
        fragment.extend(((IPV4 + room) as u16).to_be_bytes());
        fragment.extend([1, 2, 0x20, 0]);
        fragment.extend(&ip[8..IPV4 + room]);
        set_header_checksum(&mut fragment[tags..]);
    }
    fragment
}

/// Of an IPv4 header behind an Ethernet header.
fn set_header_checksum(frame: &mut [u8]) {
    let header = &mut frame[ETHERNET..ETHERNET + 20];
    header[10..12].fill(0);
    let checksum = internet_checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// What a router sends to the server.
pub(super) fn icmp_error(is_v4: bool, mtu: u32, quoted: &[u8]) -> Vec<u8> {
    let (source, destination) = match is_v4 {
        true => (crate::role::PEER, crate::role::RELAYED),
        false => (crate::role::PEER_V6, crate::role::RELAYED_V6),
    };
    Packet::new(source, destination).too_big(mtu, quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_as_long_as_the_path_takes() {
        for subject in Subject::all() {
            let frame = subject.servers(&data(1400)).build();
            for mtu in [1280, 1300, 1307] {
                let length = first_fragment(&frame, mtu).len() - ETHERNET;
                assert!((mtu - 7..=mtu).contains(&length), "{length} of {mtu}");
            }
        }
    }
}
