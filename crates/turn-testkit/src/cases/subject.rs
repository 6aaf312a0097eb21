//! The flows that the tables are about: every direction between every two address families.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use turn_datapath::fingerprint::fingerprint;
use turn_datapath::flow::path_flags;
use turn_datapath::{Flow, FlowKey};
use turn_wire::Be16;
use turn_wire::ethernet::{MacAddress, VlanTags};

use super::{HERE, NOW, SECOND};
use crate::checksum::internet_checksum;
use crate::memory::MemoryFrame;
use crate::oracle::{self, Leg, NotRelayed, Rule};
use crate::packet::{Packet, Tag};
use crate::role::*;

/// The channel that the client bound to the peer.
pub const CHANNEL: u16 = 0x4001;
/// The channel that the other client bound to the first one's relayed transport address.
pub const OTHER_CHANNEL: u16 = 0x4ffe;
/// MTU of every interface that a case does not say otherwise of.
pub const MTU: u16 = 1500;
/// The application data of packets that are not about their data.
pub const DATA: &[u8] = b"Should not change!!";

/// Another client of the same server.
pub const OTHER_CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, 3, 2)), 40002);
/// Another client of the same server, IPv6.
pub const OTHER_CLIENT_V6: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 2)), 40002);

/// A flow.
#[derive(Clone, Debug)]
pub struct Subject {
    /// As its packets come in.
    pub input: Leg,
    /// As they leave.
    pub output: Leg,
    /// Armed: its lease runs on, and no heartbeat is due.
    pub flow: Flow,
}

impl Subject {
    /// Client to peer, peer to client and client to client, each between all pairs of families.
    pub fn all() -> Vec<Self> {
        [Self::to_peer(), Self::to_client(), Self::client_to_client()].concat()
    }

    /// Those whose packets come in as ChannelData.
    pub fn from_clients() -> Vec<Self> {
        [Self::to_peer(), Self::client_to_client()].concat()
    }

    /// From client to peer: 4-4, 4-6, 6-4, 6-6.
    pub fn to_peer() -> Vec<Self> {
        family_pairs([(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)], [(RELAYED, PEER), (RELAYED_V6, PEER_V6)])
            .map(|((client, server), (relayed, peer))| {
                Self::new(leg(client, server, Some(CHANNEL)), leg(relayed, peer, None))
            })
            .collect()
    }

    /// From peer to client: 4-4, 4-6, 6-4, 6-6.
    pub fn to_client() -> Vec<Self> {
        family_pairs([(PEER, RELAYED), (PEER_V6, RELAYED_V6)], [(SERVER, CLIENT), (SERVER_V6, CLIENT_V6)])
            .map(|((peer, relayed), (server, client))| {
                Self::new(leg(peer, relayed, None), leg(server, client, Some(CHANNEL)))
            })
            .collect()
    }

    /// From client to client, where each bound a channel to the other's relayed transport address: 4-4, 4-6, 6-4, 6-6.
    pub fn client_to_client() -> Vec<Self> {
        family_pairs(
            [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)],
            [(SERVER, OTHER_CLIENT), (SERVER_V6, OTHER_CLIENT_V6)],
        )
        .map(|((client, server), (other_server, other))| {
            Self::new(leg(client, server, Some(CHANNEL)), leg(other_server, other, Some(OTHER_CHANNEL)))
        })
        .collect()
    }

    fn new(input: Leg, output: Leg) -> Self {
        let flow = Flow {
            lease_until: NOW + 7 * SECOND,
            heartbeat_at: NOW + 2 * SECOND,
            kernel_packets: 40,
            kernel_bytes: 4000,
            out_source: output.source.ip().into(),
            out_destination: output.destination.ip().into(),
            out_source_port: Be16::new(output.source.port()),
            out_destination_port: Be16::new(output.destination.port()),
            out_channel: Be16::new(output.channel.unwrap_or(0)),
            out_mtu: MTU,
            link_mtu: MTU,
            out_mtu_until: NOW + 5 * SECOND,
            label: 0x00c0_ffee,
            path_flags: path_flags::DONT_FRAGMENT | path_flags::REDIRECT,
            out_mac_destination: mac(PEER_MAC),
            out_mac_source: mac(RELAYED_MAC),
            out_ifindex: HERE,
            in_ifindex: HERE,
            in_mac: mac(SERVER_MAC),
            spilled_packets: 3,
            armed: 1,
            ..Flow::default()
        };
        Self { input, output, flow }
    }

    /// For people.
    pub fn name(&self) -> String {
        let family = |leg: &Leg| if leg.source.is_ipv4() { 4 } else { 6 };
        let direction = match (self.input.channel, self.output.channel) {
            (Some(_), None) => "to peer",
            (None, _) => "to client",
            (Some(_), Some(_)) => "client to client",
        };
        format!("{direction} {}-{}", family(&self.input), family(&self.output))
    }

    /// The key of the flow.
    pub fn key(&self) -> FlowKey {
        key(&self.input)
    }

    /// The key of the output that proves it.
    pub fn output_key(&self) -> FlowKey {
        key(&self.output)
    }

    /// A packet of the flow with this application data, as it comes in.
    pub fn packet(&self, data: &[u8]) -> Packet {
        self.padded(data, &[])
    }

    /// The same with bytes behind the ChannelData message.
    pub fn padded(&self, data: &[u8], padding: &[u8]) -> Packet {
        with_tags(packet(&self.input, data, padding), self.flow.in_tags)
    }

    /// The packet that the server sends when it relays this application data by the way that the flow knows.
    pub fn servers(&self, data: &[u8]) -> Packet {
        with_tags(packet(&self.output, data, &[]).macs(PEER_MAC, RELAYED_MAC), self.flow.out_tags)
    }

    /// The frame that has to come out when this frame goes in.
    pub fn due(&self, frame: &[u8]) -> Result<Vec<u8>, NotRelayed> {
        let has_df = self.flow.path_flags & path_flags::DONT_FRAGMENT != 0;
        let [destination, source] = [self.flow.out_mac_destination, self.flow.out_mac_source].map(octets);
        let mut rule = Rule::new(self.input, self.output, destination, source);
        rule.dont_fragment = has_df;
        rule.tags = tags_of(self.flow.out_tags);
        let mut output = oracle::relay(frame, &rule)?;
        let ip = &mut output[14 + 4 * rule.tags.len()..];
        if self.output.source.is_ipv6() {
            let [_, high, middle, low] = self.flow.label.to_be_bytes();
            ip[1] |= high & 0x0f;
            ip[2..4].copy_from_slice(&[middle, low]);
        } else if !has_df {
            let identification = self.flow.label.wrapping_add(self.flow.kernel_packets as u32) as u16;
            ip[4..6].copy_from_slice(&identification.to_be_bytes());
            ip[10..12].fill(0);
            let checksum = internet_checksum(&ip[..20]);
            ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Ok(output)
    }

    /// The same flow, changed.
    pub fn but(&self, change: impl FnOnce(&mut Flow)) -> Self {
        let mut changed = self.clone();
        change(&mut changed.flow);
        changed
    }

    /// The same flow, by these VLAN tags in and out, outermost first.
    pub fn tagged(&self, in_tags: &[Tag], out_tags: &[Tag]) -> Self {
        self.but(|flow| {
            flow.in_tags = tags(in_tags).without_priority();
            flow.out_tags = tags(out_tags);
        })
    }

    /// The same flow, waiting for the server to relay a packet with this application data.
    pub fn awaiting(&self, data: &[u8]) -> Self {
        self.but(|flow| {
            note(flow, data);
            flow.noted_tags = flow.in_tags;
        })
    }
}

/// What a flow remembers of a packet that came in just before the case.
pub fn note(flow: &mut Flow, data: &[u8]) {
    flow.noted_fingerprint = print(data);
    flow.noted_ifindex = HERE;
    flow.noted_mac = mac(SERVER_MAC);
    flow.noted_until = NOW + 50 * super::MILLISECOND;
}

/// The fingerprint of application data. That it tells packets apart has tests of its own.
pub fn print(data: &[u8]) -> u64 {
    fingerprint(&MemoryFrame::new(data), 0, data.len() as u16).unwrap()
}

/// Application data in which no byte is like its neighbours.
pub fn data(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 167 + at / 256 + 13) as u8).collect()
}

/// A MAC address as the maps hold it.
pub fn mac(mac: Mac) -> MacAddress {
    let [a, b, c, d, e, f] = mac;
    MacAddress([[a, b], [c, d], [e, f]].map(|bytes| Be16::new(u16::from_be_bytes(bytes))))
}

/// VLAN tags as the maps hold them, outermost first.
pub fn tags(tags: &[Tag]) -> VlanTags {
    let one = |tag: &Tag| VlanTags::one(Be16::new(tag.tpid), Be16::new(tag.tci));
    match tags {
        [] => VlanTags::NONE,
        [tag] => one(tag),
        [outer, inner] => one(outer).around(one(inner)).expect("room for two"),
        _ => panic!("{} tags", tags.len()),
    }
}

fn tags_of(tags: VlanTags) -> Vec<Tag> {
    let both = [tags.outer(), tags.innermost()].into_iter().flatten();
    both.map(|(tpid, tci)| Tag { tpid: tpid.value(), tci: tci.value() }).collect()
}

fn with_tags(packet: Packet, tags: VlanTags) -> Packet {
    tags_of(tags).into_iter().fold(packet, |packet, Tag { tpid, tci }| packet.tag(tpid, tci))
}

fn octets(MacAddress([a, b, c]): MacAddress) -> Mac {
    let [[a, b], [c, d], [e, f]] = [a, b, c].map(|word| word.value().to_be_bytes());
    [a, b, c, d, e, f]
}

/// The key of packets on this leg.
pub fn key(leg: &Leg) -> FlowKey {
    FlowKey {
        source: leg.source.ip().into(),
        destination: leg.destination.ip().into(),
        source_port: Be16::new(leg.source.port()),
        destination_port: Be16::new(leg.destination.port()),
        channel: Be16::new(leg.channel.unwrap_or(0)),
        reserved: Be16::new(0),
    }
}

/// A leg.
pub const fn leg(source: SocketAddr, destination: SocketAddr, channel: Option<u16>) -> Leg {
    Leg { source, destination, channel }
}

fn packet(leg: &Leg, data: &[u8], padding: &[u8]) -> Packet {
    let packet = Packet::new(leg.source, leg.destination);
    match leg.channel {
        Some(channel) => packet.channel_data(channel, data, padding),
        None => packet.payload(data),
    }
}

type Addresses = (SocketAddr, SocketAddr);

fn family_pairs(
    inputs: [Addresses; 2],
    outputs: [Addresses; 2],
) -> impl Iterator<Item = (Addresses, Addresses)> {
    inputs.into_iter().flat_map(move |input| outputs.into_iter().map(move |output| (input, output)))
}
