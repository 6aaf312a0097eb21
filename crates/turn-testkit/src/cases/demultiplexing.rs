//! Which flow a packet belongs to, if any.

use turn_datapath::Reason;
use turn_wire::Be16;

use super::Case;
use super::control::{CHANNEL_BIND, stun};
use super::draft::Draft;
use super::subject::{DATA, OTHER_CLIENT, OTHER_CLIENT_V6, Subject, data};
use crate::packet::Packet;

/// A channel number is what is bound, wherever in 0x4000 to 0x7fff it lies.
pub fn fr14_bound_channels_are_relayed() -> Vec<Case> {
    let mut cases = Vec::new();
    for mut subject in Subject::from_clients() {
        for channel in [0x4000, 0x4001, 0x4fff, 0x5000, 0x7ffe, 0x7fff] {
            subject.input.channel = Some(channel);
            let frame = subject.packet(DATA).build();
            cases.push(Draft::received(format!("channel {channel:#06x}"), &subject, frame).relayed());
        }
    }
    cases
}

/// Outside of that range nothing is a channel number, even where a map says so.
pub fn fr14_words_outside_the_range_are_no_channel_numbers() -> Vec<Case> {
    let mut cases = Vec::new();
    for mut subject in Subject::from_clients() {
        for channel in [0x0001, 0x3fff, 0x8000, 0xc001, 0xffff] {
            subject.input.channel = Some(channel);
            let frame = subject.packet(DATA).build();
            let draft = Draft::received(format!("word {channel:#06x}"), &subject, frame);
            cases.push(draft.passes(Reason::NoFlow));
        }
    }
    cases
}

/// Every first byte at a listener: STUN, ZRTP, DTLS, unbound channels, QUIC, RTP.
pub fn fr15_whatever_is_unbound_at_a_listener_passes() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for first in 0..=255_u8 {
            let mut payload = data(40);
            // Never the bound channel.
            payload[..4].copy_from_slice(&[first, 0x77, 0, 36]);
            let packet = Packet::new(subject.input.source, subject.input.destination);
            let draft = Draft::received(
                format!("first byte {first:#04x}"),
                &subject,
                packet.payload(&payload).build(),
            );
            cases.push(draft.passes(Reason::NoFlow));
        }
    }
    cases
}

/// Too short for a ChannelData header.
pub fn datagrams_of_0_to_3_bytes_at_a_listener_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for length in 0..4 {
            let whole = subject.packet(&[]).build();
            let payload = &whole[whole.len() - 4..][..length];
            let packet = Packet::new(subject.input.source, subject.input.destination).payload(payload);
            let draft = Draft::received(format!("{length} bytes"), &subject, packet.build());
            cases.push(draft.passes(Reason::NoFlow));
        }
    }
    cases
}

/// Every first byte at a relayed transport address is a peer's data.
pub fn fr16_pr7_whatever_comes_from_a_peer_is_data() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::to_client() {
        for first in 0..=255_u8 {
            let mut payload = data(40);
            payload[0] = first;
            let frame = subject.packet(&payload).build();
            cases.push(Draft::received(format!("first byte {first:#04x}"), &subject, frame).relayed());
        }
        for stun_type in [0x0001, 0x0003, 0x0004, 0x0008, CHANNEL_BIND, 0x0016, 0x0017, 0x0101, 0x0109] {
            let frame = subject.packet(&stun(stun_type, 24)).build();
            cases.push(Draft::received(format!("STUN type {stun_type:#06x}"), &subject, frame).relayed());
        }
        for (name, head) in
            [("ChannelData", [0x40, 1, 0, 4]), ("ChannelData of wrong length", [0x40, 1, 0xff, 0xff])]
        {
            let frame = subject.packet(&[&head[..], b"data"].concat()).build();
            cases.push(Draft::received(name, &subject, frame).relayed());
        }
    }
    cases
}

/// Another channel of a client, and a ChannelData message that is no message of this client.
pub fn cd4_cd11_unknown_channels_and_5_tuples_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        let leg = subject.input;
        let stranger = if leg.source.is_ipv4() { OTHER_CLIENT } else { OTHER_CLIENT_V6 };
        let mut other_source_port = leg.source;
        other_source_port.set_port(leg.source.port() ^ 1);
        let mut other_destination_port = leg.destination;
        other_destination_port.set_port(leg.destination.port() ^ 0x100);
        let mut other_destination = leg.destination;
        other_destination.set_ip(stranger.ip());
        let mut row = |name: &str, source, destination, channel| {
            let other =
                Subject { input: super::subject::leg(source, destination, channel), ..subject.clone() };
            let frame = other.packet(DATA).build();
            cases.push(Draft::received(name, &subject, frame).passes(Reason::NoFlow));
        };
        row("another source", stranger, leg.destination, leg.channel);
        row("another source port", other_source_port, leg.destination, leg.channel);
        row("another destination port", leg.source, other_destination_port, leg.channel);
        row("another destination", leg.source, other_destination, leg.channel);
        row("the other way round", leg.destination, leg.source, leg.channel);
        if let Some(channel) = leg.channel {
            row("another channel", leg.source, leg.destination, Some(channel + 1));
        }
    }
    cases
}

/// The same channel number of two clients, and two channels of one client, are flows of their own.
pub fn flows_do_not_mix() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for other in Subject::all() {
            if other.key() == subject.key() {
                continue;
            }
            let mut sibling = subject.clone();
            sibling.input.channel = sibling.input.channel.map(|channel| channel + 1);
            sibling.input.source.set_port(sibling.input.source.port() + 1);
            sibling.flow.out_destination_port = Be16::new(9);
            let draft =
                Draft::received(format!("beside {}", other.name()), &subject, subject.packet(DATA).build());
            let case = draft.setting(|setting| {
                setting.flows.push((other.key(), other.flow));
                setting.flows.push((sibling.key(), sibling.flow));
            });
            cases.push(case.relayed());
        }
    }
    cases
}
