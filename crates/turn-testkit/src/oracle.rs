//! A plain reference of the translation, built from the dissector and the packet builder and thus from nothing that runs
//! in the kernel: the frame is taken apart, checked, and a new one is written with every checksum computed from scratch.

use std::net::SocketAddr;

use thiserror::Error;

use crate::dissect::{Checksum, Dissected, Flaw, Network, dissect};
use crate::packet::{Packet, Tag, UdpChecksum, channel_data};
use crate::role::Mac;

/// One side of a flow: the transport addresses on the wire, and the channel if the data travels as ChannelData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Source transport address.
    pub source: SocketAddr,
    /// Destination transport address.
    pub destination: SocketAddr,
    /// Channel number of the ChannelData message; `None` for bare application data.
    pub channel: Option<u16>,
}

/// A translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What comes in.
    pub input: Leg,
    /// What goes out.
    pub output: Leg,
    /// Ethernet destination of what goes out.
    pub destination_mac: Mac,
    /// Ethernet source of what goes out.
    pub source_mac: Mac,
    /// VLAN tags of what goes out, outermost first.
    pub tags: Vec<Tag>,
    /// DF of what goes out, over IPv4.
    pub dont_fragment: bool,
}

impl Rule {
    /// From one leg to the other, untagged and with DF, between the given MAC addresses.
    pub fn new(input: Leg, output: Leg, destination_mac: Mac, source_mac: Mac) -> Self {
        Self { input, output, destination_mac, source_mac, tags: Vec::new(), dont_fragment: true }
    }
}

/// Why a frame has to go to the server untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotRelayed {
    /// Malformed, or a checksum is wrong.
    #[error(transparent)]
    Flaw(#[from] Flaw),
    /// Other addresses, ports or channel than the rule's.
    #[error("not this flow")]
    OtherFlow,
    /// A fragment, or the reserved IPv4 flag is set.
    #[error("fragment or reserved flag")]
    Fragment,
    /// IPv4 options or IPv6 extension headers.
    #[error("options or extension headers")]
    Options,
    /// TTL or hop limit of 0 or 1.
    #[error("last hop")]
    LastHop,
    /// IP payload behind the UDP datagram.
    #[error("surplus behind the UDP datagram")]
    Surplus,
    /// No ChannelData message of the declared length, or something else than padding to four bytes behind it.
    #[error("ChannelData length")]
    ChannelDataLength,
}

/// The frame that has to come out when `frame` goes in. The IPv4 identification and the IPv6 flow label of the result are
/// zero; [`check`] knows what else they may be. A missing UDP checksum stays missing from IPv4 to IPv4 and is computed
/// from IPv4 to IPv6.
pub fn relay(frame: &[u8], rule: &Rule) -> Result<Vec<u8>, NotRelayed> {
    let input = dissect(frame)?.verify()?;
    match &input.network {
        Network::V4 { more_fragments: true, .. } | Network::V4 { reserved_flag: true, .. } => {
            return Err(NotRelayed::Fragment);
        }
        Network::V4 { options, .. } if !options.is_empty() => return Err(NotRelayed::Options),
        Network::V6 { extensions, .. } if !extensions.is_empty() => return Err(NotRelayed::Options),
        _ => {}
    }
    if (input.source, input.destination) != (rule.input.source, rule.input.destination) {
        return Err(NotRelayed::OtherFlow);
    }
    if input.network.hop_limit() <= 1 {
        return Err(NotRelayed::LastHop);
    }
    if !input.surplus.is_empty() {
        return Err(NotRelayed::Surplus);
    }
    let data = application_data(&input, rule.input.channel)?;

    let payload = match rule.output.channel {
        Some(channel) => channel_data(channel, data, &[]),
        None => data.to_vec(),
    };
    let unsummed = input.udp_checksum == Checksum::Zero && rule.output.source.is_ipv4();
    let mut output = Packet::new(rule.output.source, rule.output.destination)
        .macs(rule.destination_mac, rule.source_mac)
        .traffic_class(input.network.traffic_class())
        .hop_limit(input.network.hop_limit() - 1)
        .identification(0)
        .dont_fragment(rule.dont_fragment)
        .payload(&payload)
        .udp_checksum(if unsummed { UdpChecksum::Zero } else { UdpChecksum::Right });
    for tag in &rule.tags {
        output = output.tag(tag.tpid, tag.tci);
    }
    Ok(output.build())
}

fn application_data(input: &Dissected, channel: Option<u16>) -> Result<&[u8], NotRelayed> {
    let Some(channel) = channel else { return Ok(&input.payload) };
    let (found, data, padding) = input.channel_data().ok_or(NotRelayed::ChannelDataLength)?;
    if found != channel {
        return Err(NotRelayed::OtherFlow);
    }
    if !padding.is_empty() && data.len() + padding.len() != data.len().next_multiple_of(4) {
        return Err(NotRelayed::ChannelDataLength);
    }
    Ok(data)
}

/// How an output frame differs from the one that was due.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// The input should not have been relayed at all.
    #[error("relayed what is not to be relayed: {0}")]
    Relayed(#[from] NotRelayed),
    /// The output is no whole datagram with right checksums.
    #[error("output is malformed: {0}")]
    Malformed(#[from] Flaw),
    /// A field is different.
    #[error("output is\n{actual:?}\nbut should be\n{expected:?}")]
    Different {
        /// What was due.
        expected: Box<Dissected>,
        /// What came.
        actual: Box<Dissected>,
    },
    /// The flow label was taken over from the input.
    #[error("flow label {0:#07x} was copied")]
    FlowLabelCopied(u32),
}

/// Compares an output frame with what [`relay`] makes of the input. The IPv4 identification has to be zero with DF and may be
/// anything without it; the IPv6 flow label may be anything but the input's.
pub fn check(input: &[u8], rule: &Rule, output: &[u8]) -> Result<(), Mismatch> {
    let expected = relay(input, rule)?;
    same(&expected, output)?;
    if let (Ok(Some(before)), Ok(Some(after))) = (flow_label(input), flow_label(output))
        && before == after
        && before != 0
    {
        return Err(Mismatch::FlowLabelCopied(after));
    }
    Ok(())
}

/// Compares two frames field by field, except for the IPv4 identification where DF is clear and for the IPv6 flow label. Both have
/// to have right checksums.
pub fn same(expected: &[u8], actual: &[u8]) -> Result<(), Mismatch> {
    let expected = masked(dissect(expected)?.verify()?);
    let actual = masked(dissect(actual)?.verify()?);
    if expected == actual {
        return Ok(());
    }
    Err(Mismatch::Different { expected: Box::new(expected), actual: Box::new(actual) })
}

fn masked(mut packet: Dissected) -> Dissected {
    match &mut packet.network {
        Network::V4 { identification, dont_fragment: false, .. } => *identification = 0,
        Network::V4 { .. } => {}
        Network::V6 { flow_label, .. } => *flow_label = 0,
    }
    packet
}

fn flow_label(frame: &[u8]) -> Result<Option<u32>, Flaw> {
    match dissect(frame)?.network {
        Network::V4 { .. } => Ok(None),
        Network::V6 { flow_label, .. } => Ok(Some(flow_label)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::*;

    const DATA: &[u8] = b"Should not change!!";

    fn families() -> impl Iterator<Item = (Rule, Rule)> {
        let client_sides = [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)];
        let peer_sides = [(RELAYED, PEER), (RELAYED_V6, PEER_V6)];
        client_sides.into_iter().flat_map(move |(client, server)| {
            peer_sides.into_iter().map(move |(relayed, peer)| {
                let client_in = Leg { source: client, destination: server, channel: Some(0x4001) };
                let peer_out = Leg { source: relayed, destination: peer, channel: None };
                let peer_in = Leg { source: peer, destination: relayed, channel: None };
                let client_out = Leg { source: server, destination: client, channel: Some(0x4001) };
                (
                    Rule::new(client_in, peer_out, PEER_MAC, RELAYED_MAC),
                    Rule::new(peer_in, client_out, CLIENT_MAC, SERVER_MAC),
                )
            })
        })
    }

    #[test]
    fn there_and_back_keeps_the_data() {
        for (to_peer, to_client) in families() {
            let Leg { source, destination, .. } = to_peer.input;
            let input = Packet::new(source, destination)
                .traffic_class(0xb9)
                .flow_label(7)
                .channel_data(0x4001, DATA, &[0xff])
                .trailer(&[0; 6])
                .build();
            let output = relay(&input, &to_peer).unwrap();
            let at_peer = dissect(&output).and_then(Dissected::verify).unwrap();
            assert_eq!(at_peer.payload, DATA);
            assert_eq!((at_peer.network.hop_limit(), at_peer.network.traffic_class()), (63, 0xb9));
            assert!(at_peer.trailer.is_empty());

            let answer = Packet::new(at_peer.destination, at_peer.source).payload(DATA).build();
            let at_client =
                dissect(&relay(&answer, &to_client).unwrap()).and_then(Dissected::verify).unwrap();
            assert_eq!(at_client.channel_data(), Some((0x4001, DATA, &[][..])));
        }
    }

    #[test]
    fn what_the_server_has_to_see_is_refused() {
        let (to_peer, _) = families().next().unwrap();
        let good = Packet::new(CLIENT, SERVER).channel_data(0x4001, DATA, &[]);
        let refused = |packet: Packet| relay(&packet.build(), &to_peer).unwrap_err();
        assert_eq!(refused(good.clone().hop_limit(1)), NotRelayed::LastHop);
        assert_eq!(refused(good.clone().fragment(true, 0)), NotRelayed::Fragment);
        assert_eq!(refused(good.clone().options(&[1; 4])), NotRelayed::Options);
        assert_eq!(refused(good.clone().surplus(&[1; 4])), NotRelayed::Surplus);
        assert_eq!(refused(good.clone().channel_data(0x4002, DATA, &[])), NotRelayed::OtherFlow);
        assert_eq!(refused(good.clone().channel_data(0x4001, DATA, &[0; 2])), NotRelayed::ChannelDataLength);
        assert_eq!(refused(good.clone().payload(&[0x40, 1, 0, 9, 0])), NotRelayed::ChannelDataLength);
        assert!(matches!(refused(good.udp_checksum(UdpChecksum::Corrupt(1))), NotRelayed::Flaw(_)));
    }

    #[test]
    fn a_missing_checksum_stays_missing_only_over_ipv4() {
        for (to_peer, _) in families().filter(|(to_peer, _)| to_peer.input.source.is_ipv4()) {
            let input = Packet::new(CLIENT, SERVER)
                .channel_data(0x4001, DATA, &[])
                .udp_checksum(UdpChecksum::Zero)
                .build();
            let output = dissect(&relay(&input, &to_peer).unwrap()).unwrap();
            let v4 = to_peer.output.source.is_ipv4();
            assert_eq!(output.udp_checksum, if v4 { Checksum::Zero } else { Checksum::Right });
        }
    }

    /// The oracle itself has to notice each of these.
    #[test]
    fn every_wrong_output_is_noticed() {
        for (rule, _) in families() {
            let Leg { source, destination, .. } = rule.input;
            let input =
                Packet::new(source, destination).flow_label(7).channel_data(0x4001, DATA, &[]).build();
            let good = relay(&input, &rule).unwrap();
            assert_eq!(check(&input, &rule, &good), Ok(()));
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 0x80 >> (bit % 8);
                let flow_label = rule.output.source.is_ipv6() && (14 * 8 + 12..14 * 8 + 32).contains(&bit);
                assert_eq!(check(&input, &rule, &bad).is_ok(), flow_label, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_copied_flow_label_is_noticed() {
        let (rule, _) = families().last().unwrap();
        let input = Packet::new(CLIENT_V6, SERVER_V6).flow_label(7).channel_data(0x4001, DATA, &[]).build();
        let mut output = relay(&input, &rule).unwrap();
        output[17] = 7;
        assert_eq!(check(&input, &rule, &output), Err(Mismatch::FlowLabelCopied(7)));
    }

    #[test]
    fn an_identification_is_free_only_without_df() {
        let (mut rule, _) = families().next().unwrap();
        let input = Packet::new(CLIENT, SERVER).channel_data(0x4001, DATA, &[]).build();
        let other = |rule: &Rule| {
            Packet::new(RELAYED, PEER)
                .macs(PEER_MAC, RELAYED_MAC)
                .hop_limit(63)
                .identification(99)
                .dont_fragment(rule.dont_fragment)
                .payload(DATA)
                .build()
        };
        assert!(check(&input, &rule, &other(&rule)).is_err());
        rule.dont_fragment = false;
        assert_eq!(check(&input, &rule, &other(&rule)), Ok(()));
    }
}
