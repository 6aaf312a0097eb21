//! Packets that the server sends, and the leases that they grant.

use std::net::IpAddr;

use turn_datapath::control::kind;
use turn_datapath::flow::{interface_flags, path_flags};
use turn_datapath::{Flow, Interface, Reason};
use turn_wire::{Be16, IpAddress};

use super::draft::Draft;
use super::subject::{DATA, MTU, OTHER_CLIENT, OTHER_CLIENT_V6, Subject, data, mac};
use super::{Case, ELSEWHERE, HERE, NOW, SECOND};
use crate::packet::{Packet, TPID_8021Q};
use crate::role::{CLIENT_MAC, PEER_MAC, RELAYED_MAC, SERVER_MAC};

/// The server relays the noted packet, and a flow that knew no way gets a lease and the way.
pub fn a_witness_grants_a_lease() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        for length in [0, 1, 19, 31, 32, 33, 1200] {
            let data = data(length);
            let subject = subject.awaiting(&data);
            let draft = Draft::sent(format!("{length} bytes"), &subject, subject.servers(&data).build());
            let case = armed(draft.passes(Reason::Witness)).reports(kind::ARMED);
            cases.push(case.leaves(|flow| sent_whole(flow, length)));
        }
        let late = subject.awaiting(DATA).but(|flow| flow.noted_until = NOW - 10 * SECOND + 1);
        let draft = Draft::sent("a slow server", &late, subject.servers(DATA).build());
        cases.push(armed(draft.passes(Reason::Witness)).reports(kind::ARMED));
    }
    cases
}

/// A lease that lapsed is granted anew, with the way that is right by now.
pub fn a_witness_rearms_a_lapsed_flow() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let lapsed = subject.awaiting(DATA).but(|flow| {
            flow.lease_until = NOW;
            flow.out_mac_destination = mac(CLIENT_MAC);
            flow.out_mac_source = mac(CLIENT_MAC);
            flow.out_ifindex = ELSEWHERE;
            flow.in_ifindex = ELSEWHERE;
            flow.in_mac = mac(CLIENT_MAC);
            flow.out_source = IpAddress::ANY;
        });
        let case = Draft::sent("another way", &lapsed, subject.servers(DATA).build()).passes(Reason::Witness);
        let case = armed(case).leaves(|flow| flow.out_source = subject.output.source.ip().into());
        cases.push(case.reports(kind::ARMED));
    }
    cases
}

/// While the lease runs, a witness makes it longer, and nobody hears of it.
pub fn a_witness_renews_a_lease() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for (name, lease_until) in [("runs", NOW + 7 * SECOND), ("the last nanosecond", NOW + 1)] {
            let subject = subject.awaiting(DATA).but(|flow| flow.lease_until = lease_until);
            let case = Draft::sent(name, &subject, subject.servers(DATA).build()).passes(Reason::Witness);
            cases.push(case.leaves(|flow| {
                flow.lease_until = NOW + 10 * SECOND;
                flow.noted_until = 0;
            }));
        }
    }
    cases
}

/// Other data, also where the addresses, ports and channel are right, and data where none were noted.
pub fn other_data_are_no_witness() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        let noted = data(64);
        let subject = subject.awaiting(&noted);
        let mut row = |name: String, data: &[u8]| {
            let draft = Draft::sent(name, &subject, subject.servers(data).build());
            cases.push(draft.passes(Reason::OtherPayload));
        };
        for byte in 0..32 {
            for bit in [0x01, 0x80] {
                let mut other = noted.clone();
                other[byte] ^= bit;
                row(format!("byte {byte}"), &other);
            }
        }
        for length in [0, 1, 31, 32, 33, 63] {
            row(format!("{length} of 64 bytes"), &noted[..length]);
        }
        row("longer".into(), &data(65));
        let nothing = subject.but(|flow| flow.noted_until = 0);
        let draft = Draft::sent("nothing noted", &nothing, subject.servers(&noted).build());
        cases.push(draft.passes(Reason::OtherPayload));
    }
    cases
}

/// An end of the lease, since another CPU may be sending by half of the old way; the next witness brings the new way.
pub fn another_way_ends_the_lease() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        type Change = fn(&mut Flow);
        let changes: [(&str, Change); 7] = [
            ("receiver's MAC", |flow| flow.out_mac_destination = mac(CLIENT_MAC)),
            ("sender's MAC", |flow| flow.out_mac_source = mac(CLIENT_MAC)),
            ("source address", |flow| flow.out_source = IpAddress::ANY),
            ("source port", |flow| flow.out_source_port = Be16::new(0)),
            ("way out", |flow| flow.out_ifindex = ELSEWHERE),
            ("way in", |flow| flow.in_ifindex = ELSEWHERE),
            ("own MAC", |flow| flow.in_mac = mac(RELAYED_MAC)),
        ];
        for (name, change) in changes {
            let moved = subject.awaiting(DATA).but(change);
            let case = Draft::sent(name, &moved, subject.servers(DATA).build()).passes(Reason::PathChanged);
            let case = case.leaves(|flow| {
                flow.lease_until = 0;
                flow.noted_until = 0;
            });
            cases.push(case.reports(kind::PATH_CHANGED));
        }
    }
    cases
}

/// What may change while packets are being relayed: the MTU of the way out, and DF.
pub fn ip8_a_witness_brings_mtu_and_df() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for has_df in [false, true] {
            for (mtu, known) in [(1280, 1280), (9000, 9000), (65_535, 65_535), (65_536, 65_535), (500, 500)] {
                let subject = subject.awaiting(DATA).but(|flow| flow.path_flags ^= path_flags::DONT_FRAGMENT);
                let frame = subject.servers(DATA).dont_fragment(has_df).build();
                let draft = Draft::sent(format!("MTU {mtu}, DF {has_df}"), &subject, frame);
                let interface =
                    Interface { mtu, flags: interface_flags::TRANSMITS, looked_after_until: u64::MAX };
                let draft = draft.setting(|setting| setting.interfaces = vec![(HERE, interface)]);
                let df =
                    if has_df || subject.output.source.is_ipv6() { path_flags::DONT_FRAGMENT } else { 0 };
                cases.push(draft.passes(Reason::Witness).leaves(|flow| {
                    flow.lease_until = NOW + 10 * SECOND;
                    flow.noted_until = 0;
                    flow.link_mtu = known;
                    flow.path_flags = df | path_flags::REDIRECT;
                }));
            }
        }
    }
    cases
}

/// Frames may be redirected where the way in is generic or the way out transmits.
pub fn a_witness_brings_whether_frames_can_be_redirected() -> Vec<Case> {
    let mut cases = Vec::new();
    const GENERIC: u32 = interface_flags::GENERIC;
    const TRANSMITS: u32 = interface_flags::TRANSMITS;
    const PARTS: u32 = interface_flags::TRANSMITS_PARTS;
    const ONLY: u32 = interface_flags::ONLY_REDIRECT;
    for subject in Subject::all() {
        for (way_in, way_out, redirect) in [
            (0, 0, 0),
            (GENERIC, 0, path_flags::REDIRECT | path_flags::REDIRECT_PARTS),
            (0, TRANSMITS, path_flags::REDIRECT),
            (TRANSMITS, 0, 0),
            (0, GENERIC, 0),
            (GENERIC, TRANSMITS, path_flags::REDIRECT | path_flags::REDIRECT_PARTS),
            (0, ONLY, path_flags::ONLY_REDIRECT),
            (ONLY, TRANSMITS, path_flags::REDIRECT),
            (0, TRANSMITS | ONLY, path_flags::REDIRECT | path_flags::ONLY_REDIRECT),
            (0, TRANSMITS | PARTS, path_flags::REDIRECT | path_flags::REDIRECT_PARTS),
            (PARTS, TRANSMITS, path_flags::REDIRECT),
        ] {
            let subject = subject.awaiting(DATA).but(|flow| {
                flow.noted_ifindex = ELSEWHERE;
                flow.in_ifindex = ELSEWHERE;
                if way_in == GENERIC {
                    flow.noted_fingerprint = !flow.noted_fingerprint;
                }
            });
            let draft =
                Draft::sent(format!("in {way_in}, out {way_out}"), &subject, subject.servers(DATA).build());
            let interfaces = [(ELSEWHERE, way_in), (HERE, way_out)];
            let draft = draft.setting(|setting| {
                let mtu = MTU.into();
                setting.interfaces = interfaces
                    .map(|(ifindex, flags)| (ifindex, Interface { mtu, flags, looked_after_until: u64::MAX }))
                    .into();
            });
            cases.push(draft.passes(Reason::Witness).leaves(|flow| {
                flow.lease_until = NOW + 10 * SECOND;
                flow.noted_until = 0;
                flow.path_flags = path_flags::DONT_FRAGMENT | redirect;
            }));
        }
    }
    cases
}

/// The server's own address may be another one than it advertised. Peers answer to the one that they see.
pub fn a_wildcard_source_finds_the_real_one() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::to_peer() {
        let real: IpAddr =
            if subject.output.source.is_ipv4() { OTHER_CLIENT.ip() } else { OTHER_CLIENT_V6.ip() };
        let mut source = subject.output.source;
        source.set_ip(real);
        let frame = |port_by: u16| {
            let mut source = source;
            source.set_port(source.port() + port_by);
            Packet::new(source, subject.output.destination).macs(PEER_MAC, RELAYED_MAC).payload(DATA).build()
        };
        let wildcard = turn_datapath::FlowKey { source: IpAddress::ANY, ..subject.output_key() };

        let unarmed = subject.awaiting(DATA).but(|flow| flow.lease_until = 0);
        let draft = Draft::sent("unarmed", &unarmed, frame(0));
        let draft = draft.setting(|setting| setting.expected.push((wildcard, subject.key())));
        let case = armed(draft.passes(Reason::Witness)).leaves(|flow| flow.out_source = real.into());
        cases.push(case.reports(kind::ARMED));

        let other_port = Draft::sent("another port", &unarmed, frame(1));
        let other_port = other_port.setting(|setting| setting.expected.push((wildcard, subject.key())));
        cases.push(other_port.passes(Reason::EgressOther));

        let running = subject.awaiting(DATA);
        let draft = Draft::sent("armed with another", &running, frame(0));
        let draft = draft.setting(|setting| setting.expected.push((wildcard, subject.key())));
        let case = draft.passes(Reason::PathChanged).leaves(|flow| {
            flow.lease_until = 0;
            flow.noted_until = 0;
        });
        cases.push(case.reports(kind::PATH_CHANGED));
    }
    cases
}

/// Of a call that is older than turn-bpf not even the port of its relayed transport address is known.
pub fn a_wildcard_port_finds_the_relayed_transport_address() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed().into_iter().filter(|subject| subject.output.channel.is_none()) {
        let unknown = subject.awaiting(DATA).but(|flow| {
            flow.out_source = IpAddress::ANY;
            flow.out_source_port = Be16::new(0);
        });
        let wildcard = turn_datapath::FlowKey {
            source: IpAddress::ANY,
            source_port: Be16::new(0),
            ..subject.output_key()
        };
        let draft = Draft::sent("first witness", &unknown, subject.servers(DATA).build());
        let draft = draft.setting(|setting| setting.expected = vec![(wildcard, subject.key())]);
        cases.push(draft.passes(Reason::Candidate).leaves(|flow| {
            flow.noted_until = 0;
            sent_whole(flow, DATA.len());
            flow.path_flags = path_flags::DONT_FRAGMENT | path_flags::REDIRECT;
            flow.out_source = subject.output.source.ip().into();
            flow.out_source_port = Be16::new(subject.output.source.port());
        }));
        let seen_once = subject.awaiting(DATA);
        let draft = Draft::sent("second witness", &seen_once, subject.servers(DATA).build());
        let draft = draft.setting(|setting| setting.expected = vec![(wildcard, subject.key())]);
        cases.push(armed(draft.passes(Reason::Witness)).reports(kind::ARMED));
        let draft = Draft::sent("other data", &unknown, subject.servers(b"other").build());
        let draft = draft.setting(|setting| setting.expected = vec![(wildcard, subject.key())]);
        cases.push(draft.passes(Reason::OtherPayload));
    }
    cases
}

/// Packets that are not this host's own, and ones by interfaces that were not named.
pub fn what_proves_no_way_is_no_witness() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        let subject = subject.awaiting(DATA);
        let sent = |name: &str| Draft::sent(name, &subject, subject.servers(DATA).build());
        cases.push(sent("forwarded").how(|sent| sent.by_this_host = false).passes(Reason::EgressOther));
        let gone = sent("flow gone").setting(|setting| setting.expected[0].1.reserved = Be16::new(1));
        cases.push(gone.passes(Reason::EgressOther));
        let unexpected = sent("not expected").setting(|setting| setting.expected.clear());
        cases.push(unexpected.passes(Reason::EgressOther));

        let late = subject.but(|flow| flow.noted_until = NOW - 10 * SECOND);
        let draft = Draft::sent("noted a lease ago", &late, subject.servers(DATA).build());
        cases.push(draft.passes(Reason::OtherPayload));

        let awaited_no_more =
            |draft: Draft| draft.passes(Reason::EgressOther).leaves(|flow| flow.noted_until = 0);
        let unnamed = sent("by an interface that was not named");
        cases.push(awaited_no_more(unnamed.how(|sent| sent.ifindex = 99)));
        let unattended = sent("by an interface that nobody looks after any more").setting(|setting| {
            setting.interfaces.iter_mut().for_each(|(_, interface)| interface.looked_after_until = NOW);
        });
        cases.push(awaited_no_more(unattended));
        let forgotten = sent("came by an interface that is forgotten");
        cases.push(awaited_no_more(forgotten.setting(|setting| setting.interfaces.clear())));
    }
    cases
}

/// Fragments, options, too many tags, wrong lengths: the same packet, but not plain.
pub fn only_plain_datagrams_are_witnesses() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        let subject = subject.awaiting(DATA);
        let plain = subject.servers(DATA);
        let mut frames = vec![
            ("three tags", plain.clone().tag(TPID_8021Q, 5).tag(TPID_8021Q, 6).tag(TPID_8021Q, 7).build()),
            ("surplus", plain.clone().surplus(&[0; 4]).build()),
            ("truncated", plain.build()[..plain.build().len() - 1].to_vec()),
            ("TCP", plain.clone().protocol(6).build()),
        ];
        if subject.output.source.is_ipv4() {
            frames.push(("fragment", plain.clone().fragment(true, 0).build()));
            frames.push(("options", plain.clone().options(&[1; 4]).build()));
            frames.push(("header checksum", plain.clone().corrupt_header_checksum(1).build()));
        } else {
            frames.push(("extension header", plain.clone().extension(60, &[0; 8]).build()));
        }
        for (name, frame) in frames {
            cases.push(Draft::sent(name, &subject, frame).passes(Reason::EgressOther));
        }
    }
    cases
}

/// Some servers pad toward clients. The padding is no part of what is compared.
pub fn pr5_a_padded_witness_is_a_witness() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed().into_iter().filter(|subject| subject.output.channel.is_some()) {
        for padding in [&[0][..], &[0xff], &[0, 0], &[1, 2, 3], &[0; 5]] {
            let subject = subject.awaiting(DATA);
            let channel = subject.output.channel.expect("a client's flow");
            let frame = subject.servers(DATA).channel_data(channel, DATA, padding).build();
            let draft = Draft::sent(format!("padding {padding:?}"), &subject, frame);
            cases.push(armed(draft.passes(Reason::Witness)).reports(kind::ARMED));
        }
    }
    cases
}

/// A channel number tells outputs apart where it is one; data to a peer that look like ChannelData are data.
pub fn channels_tell_outputs_apart() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        let look_alike = crate::packet::channel_data(0x4001, DATA, &[]);
        let data = if subject.output.channel.is_some() { DATA } else { &look_alike };
        let subject = subject.awaiting(data);
        let draft = Draft::sent("looks like ChannelData", &subject, subject.servers(data).build());
        cases.push(armed(draft.passes(Reason::Witness)).reports(kind::ARMED));
        let Some(channel) = subject.output.channel else { continue };
        let other = subject.servers(DATA).channel_data(channel + 1, DATA, &[]).build();
        cases.push(Draft::sent("another channel", &subject, other).passes(Reason::EgressOther));
        let bare = subject.servers(DATA).payload(DATA).build();
        cases.push(Draft::sent("no ChannelData", &subject, bare).passes(Reason::EgressOther));
        let mut long = subject.servers(DATA).build();
        let at = long.len() - DATA.len() - 1;
        long[at] += 1;
        cases.push(Draft::sent("declared too long", &subject, long).passes(Reason::EgressOther));
    }
    cases
}

/// Flows that never had a lease and know no way.
pub(super) fn unarmed() -> Vec<Subject> {
    let forget = |flow: &mut Flow| {
        *flow = Flow {
            out_source: flow.out_source,
            out_destination: flow.out_destination,
            out_source_port: flow.out_source_port,
            out_destination_port: flow.out_destination_port,
            out_channel: flow.out_channel,
            label: flow.label,
            ..Flow::default()
        };
    };
    Subject::all().iter().map(|subject| subject.but(forget)).collect()
}

/// The flow knows that the server sent this much application data in one piece, and nothing else of its way before.
pub(super) fn sent_whole(flow: &mut Flow, length: usize) {
    let is_v4 = flow.out_destination.is_v4();
    let headers = if is_v4 { 28 } else { 48 } + if flow.out_channel == Be16::new(0) { 0 } else { 4 };
    flow.link_mtu = MTU;
    flow.out_mtu = ((headers + length) as u16).max(if is_v4 { 552 } else { 1280 });
    flow.out_mtu_until = NOW + 7 * SECOND;
    flow.longer_at = NOW;
}

/// The case leaves its flow armed with the way of [`Subject::servers`].
pub(super) fn armed(case: Case) -> Case {
    case.leaves(|flow| {
        sent_whole(flow, DATA.len());
        flow.lease_until = NOW + 10 * SECOND;
        flow.heartbeat_at = NOW + 3 * SECOND;
        flow.noted_until = 0;
        flow.armed += 1;
        flow.path_flags = path_flags::DONT_FRAGMENT | path_flags::REDIRECT;
        flow.out_mac_destination = mac(PEER_MAC);
        flow.out_mac_source = mac(RELAYED_MAC);
        flow.out_ifindex = HERE;
        flow.in_ifindex = HERE;
        flow.in_mac = mac(SERVER_MAC);
    })
}
