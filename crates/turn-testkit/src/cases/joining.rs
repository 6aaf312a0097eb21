//! Packets of calls that are older than turn-bpf, one after the other, and what the last of them shows.

use std::net::SocketAddr;

use turn_datapath::egress::Sent;
use turn_datapath::joining::{Sighting, origin};
use turn_datapath::{FlowKey, LeaseTerms};

use super::subject::{OTHER_CLIENT, key, leg};
use super::{HERE, Input, SENT};
use crate::packet::{Packet, channel_data};
use crate::role::*;

/// Leases as ever, and calls are looked for.
pub const TERMS: LeaseTerms = LeaseTerms { joins_until: u64::MAX, ..super::TERMS };

const CHANNEL: u16 = 0x4000;
const OTHER_CHANNEL: u16 = 0x7fff;

/// What happens.
#[derive(Clone, Debug)]
pub struct Story {
    /// For people.
    pub name: String,
    /// The packets.
    pub packets: Vec<Input>,
    /// What is reported of the last one, if anything: its key, and its origin with the key of the input.
    pub sighted: Option<(FlowKey, u32, FlowKey)>,
}

/// What a sighting says, without time and fingerprint.
pub fn said(sighting: &Sighting) -> (FlowKey, u32, FlowKey) {
    (sighting.header.key, sighting.origin, sighting.input)
}

fn comes(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Input {
    let frame = Packet::new(source, destination).macs(SERVER_MAC, CLIENT_MAC).payload(payload).build();
    Input::Received { frame, interface: HERE }
}

fn leaves(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Input {
    leaves_as(SENT, source, destination, payload)
}

fn leaves_as(sent: Sent, source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Input {
    let frame = Packet::new(source, destination).macs(PEER_MAC, RELAYED_MAC).payload(payload).build();
    Input::Sent { frame, sent }
}

/// All of them. No two have the same data, so that they can be told one after the other.
pub fn stories() -> Vec<Story> {
    let mut stories = Vec::new();
    let mut number = 0u32;
    let mut data = |length: usize| {
        number += 1;
        let mut data = vec![0x80; length];
        data[..4].copy_from_slice(&number.to_be_bytes());
        data
    };
    let none = FlowKey::default();
    for (client, server) in [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)] {
        for (relayed, peer) in [(RELAYED, PEER), (RELAYED_V6, PEER_V6)] {
            let from_client = key(&leg(client, server, Some(CHANNEL)));
            let to_client = key(&leg(server, client, Some(CHANNEL)));
            let from_peer = key(&leg(peer, relayed, None));
            let to_peer = key(&leg(relayed, peer, None));
            let mut tell = |name: &str, packets: &[Input], sighted: Option<(FlowKey, u32, FlowKey)>| {
                stories.push(Story {
                    name: format!("{name}: {client}, {peer}"),
                    packets: packets.to_vec(),
                    sighted,
                });
            };
            for (length, padding) in [(16, &[][..]), (33, &[]), (33, &[0; 3]), (1000, &[])] {
                let data = data(length);
                let message = channel_data(CHANNEL, &data, padding);
                let there = [comes(client, server, &message), leaves(relayed, peer, &data)];
                tell("to the peer", &there, Some((to_peer, origin::SEEN, from_client)));
                let data = reversed(&data);
                let message = channel_data(CHANNEL, &data, padding);
                let back = [comes(peer, relayed, &data), leaves(server, client, &message)];
                tell("to the client", &back, Some((to_client, origin::SEEN, from_peer)));
            }

            let echoed = data(100);
            let message = channel_data(CHANNEL, &echoed, &[]);
            let echo = [
                comes(client, server, &message),
                leaves(relayed, peer, &echoed),
                comes(peer, relayed, &echoed),
                leaves(server, client, &message),
            ];
            tell("an echo", &echo[..2], Some((to_peer, origin::SEEN, from_client)));
            tell("an echo's answer", &echo, Some((to_client, origin::SEEN, from_peer)));

            let hidden = data(100);
            tell(
                "not seen coming in",
                &[leaves(relayed, peer, &hidden)],
                Some((to_peer, origin::UNSEEN, none)),
            );
            let message = channel_data(CHANNEL, &hidden, &[]);
            tell(
                "what goes out to a client is no answer to what it sent",
                &[comes(client, server, &message), leaves(server, client, &message)],
                Some((to_client, origin::UNSEEN, none)),
            );

            let known = data(100);
            let (of_victim, of_other) =
                (channel_data(CHANNEL, &known, &[]), channel_data(OTHER_CHANNEL, &known, &[]));
            for order in [[&of_victim, &of_other], [&of_other, &of_victim]] {
                let both = [
                    comes(client, server, order[0]),
                    comes(client, server, order[1]),
                    leaves(relayed, peer, &known),
                ];
                tell("by two channels", &both, Some((to_peer, origin::AMBIGUOUS, none)));
            }
            let again = data(100);
            let message = channel_data(CHANNEL, &again, &[]);
            let twice = [
                comes(client, server, &message),
                comes(client, server, &message),
                leaves(relayed, peer, &again),
            ];
            tell("twice by one channel", &twice, Some((to_peer, origin::SEEN, from_client)));

            let short = data(15);
            let message = channel_data(CHANNEL, &short, &[]);
            tell("short", &[comes(client, server, &message), leaves(relayed, peer, &short)], None);
            let forwarded = data(100);
            let message = channel_data(CHANNEL, &forwarded, &[]);
            let not_ours = leaves_as(Sent { by_this_host: false, ..SENT }, relayed, peer, &forwarded);
            tell("forwarded for others", &[comes(client, server, &message), not_ours], None);
            let odd = data(100);
            let message = channel_data(CHANNEL, &odd, &[0; 5]);
            tell(
                "ChannelData of a wrong length is none",
                &[comes(client, server, &message), leaves(relayed, peer, &odd)],
                Some((to_peer, origin::UNSEEN, none)),
            );
            if server.is_ipv4() {
                let pair = data(100);
                let there = [
                    comes(client, server, &channel_data(CHANNEL, &pair, &[])),
                    leaves(server, OTHER_CLIENT, &channel_data(OTHER_CHANNEL, &pair, &[])),
                ];
                let to_other = key(&leg(server, OTHER_CLIENT, Some(OTHER_CHANNEL)));
                tell("from client to client", &there, Some((to_other, origin::SEEN, from_client)));
            }
        }
    }
    stories
}

fn reversed(data: &[u8]) -> Vec<u8> {
    let mut reversed = data.to_vec();
    reversed[..4].reverse();
    reversed[5] ^= 1;
    reversed
}
