//! Frames taken apart: every byte ends up in a field, and every checksum is computed again in full.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::checksum::{internet_checksum, udp_checksum};
use crate::packet::{TPID_8021AD, TPID_8021Q, Tag};
use crate::role::Mac;

/// A UDP datagram in an Ethernet frame, field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dissected {
    /// Ethernet destination.
    pub destination_mac: Mac,
    /// Ethernet source.
    pub source_mac: Mac,
    /// VLAN tags, outermost first.
    pub tags: Vec<Tag>,
    /// IPv4 or IPv6 header, without the addresses.
    pub network: Network,
    /// Source transport address.
    pub source: SocketAddr,
    /// Destination transport address.
    pub destination: SocketAddr,
    /// The UDP checksum, judged.
    pub udp_checksum: Checksum,
    /// The UDP payload, by the UDP length.
    pub payload: Vec<u8>,
    /// Bytes of the IP payload behind the UDP datagram.
    pub surplus: Vec<u8>,
    /// Bytes of the frame behind the IP packet.
    pub trailer: Vec<u8>,
}

/// What is in the network header besides addresses, lengths and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4.
    V4 {
        /// TOS.
        traffic_class: u8,
        /// TTL.
        hop_limit: u8,
        /// Identification.
        identification: u16,
        /// The bit that must be zero.
        reserved_flag: bool,
        /// DF.
        dont_fragment: bool,
        /// MF.
        more_fragments: bool,
        /// In units of 8 bytes.
        fragment_offset: u16,
        /// Options.
        options: Vec<u8>,
        /// The header checksum, judged; never [`Checksum::Zero`].
        checksum: Checksum,
    },
    /// IPv6.
    V6 {
        /// Traffic class.
        traffic_class: u8,
        /// Hop limit.
        hop_limit: u8,
        /// Flow label.
        flow_label: u32,
        /// Type and bytes of each extension header.
        extensions: Vec<(u8, Vec<u8>)>,
    },
}

impl Network {
    /// TOS or traffic class.
    pub fn traffic_class(&self) -> u8 {
        match *self {
            Self::V4 { traffic_class, .. } | Self::V6 { traffic_class, .. } => traffic_class,
        }
    }

    /// TTL or hop limit.
    pub fn hop_limit(&self) -> u8 {
        match *self {
            Self::V4 { hop_limit, .. } | Self::V6 { hop_limit, .. } => hop_limit,
        }
    }
}

/// A checksum, judged. The right value follows from the rest of the packet, so it is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// It fits.
    Right,
    /// It is zero: there is none.
    Zero,
    /// It does not fit.
    Wrong {
        /// In the packet.
        found: u16,
        /// Computed.
        right: u16,
    },
}

/// Why a frame is not a whole UDP datagram with right checksums.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Flaw {
    /// The frame ends inside a header, or a length points beyond the end.
    #[error("the frame ends inside {0}")]
    Truncated(&'static str),
    /// Neither IPv4 nor IPv6.
    #[error("EtherType {0:#06x}")]
    EtherType(u16),
    /// Version nibble or IPv4 header length.
    #[error("first byte of the network header is {0:#04x}")]
    Version(u8),
    /// Not UDP.
    #[error("protocol {0}")]
    Protocol(u8),
    /// A later fragment has no UDP header.
    #[error("fragment at offset {0}")]
    LaterFragment(u16),
    /// The UDP length is below 8.
    #[error("UDP length {0}")]
    UdpLength(u16),
    /// [`Dissected::verify`]: the IPv4 header checksum does not fit.
    #[error("IPv4 header checksum {found:#06x}, right would be {right:#06x}")]
    HeaderChecksum {
        /// In the packet.
        found: u16,
        /// Computed.
        right: u16,
    },
    /// [`Dissected::verify`]: the UDP checksum does not fit.
    #[error("UDP checksum {found:#06x}, right would be {right:#06x}")]
    UdpChecksum {
        /// In the packet.
        found: u16,
        /// Computed.
        right: u16,
    },
    /// [`Dissected::verify`]: no UDP checksum where IPv6 demands one.
    #[error("no UDP checksum over IPv6")]
    UdpChecksumMissing,
}

/// Takes a frame apart. Wrong checksums are reported in the result; see [`Dissected::verify`].
pub fn dissect(frame: &[u8]) -> Result<Dissected, Flaw> {
    let mut rest = Cursor(frame);
    let destination_mac = rest.array("the Ethernet header")?;
    let source_mac = rest.array("the Ethernet header")?;
    let mut tags = Vec::new();
    let ether_type = loop {
        match rest.u16("the Ethernet header")? {
            tpid @ (TPID_8021Q | TPID_8021AD) => tags.push(Tag { tpid, tci: rest.u16("a VLAN tag")? }),
            ether_type => break ether_type,
        }
    };
    let (network, [source_ip, destination_ip], mut ip_payload) = match ether_type {
        0x0800 => ipv4(&mut rest)?,
        0x86dd => ipv6(&mut rest)?,
        other => return Err(Flaw::EtherType(other)),
    };
    let trailer = rest.0.to_vec();

    let datagram = ip_payload.0;
    let source = SocketAddr::new(source_ip, ip_payload.u16("the UDP header")?);
    let destination = SocketAddr::new(destination_ip, ip_payload.u16("the UDP header")?);
    let length = ip_payload.u16("the UDP header")?;
    let found = ip_payload.u16("the UDP header")?;
    let payload_length = length.checked_sub(8).ok_or(Flaw::UdpLength(length))?;
    let first_fragment = matches!(network, Network::V4 { more_fragments: true, .. });
    let payload = if first_fragment && usize::from(payload_length) > ip_payload.0.len() {
        ip_payload.take(ip_payload.0.len(), "the UDP payload")?.to_vec()
    } else {
        ip_payload.take(payload_length.into(), "the UDP payload")?.to_vec()
    };
    let udp_checksum = if found == 0 {
        Checksum::Zero
    } else {
        let mut copy = datagram[..8 + payload.len()].to_vec();
        copy[6..8].fill(0);
        judge(found, udp_checksum(source_ip, destination_ip, &copy))
    };
    Ok(Dissected {
        destination_mac,
        source_mac,
        tags,
        network,
        source,
        destination,
        udp_checksum,
        payload,
        surplus: ip_payload.0.to_vec(),
        trailer,
    })
}

impl Dissected {
    /// Accepts only what every receiver accepts: right checksums, or none over IPv4.
    pub fn verify(self) -> Result<Self, Flaw> {
        match self.network {
            Network::V4 { checksum: Checksum::Wrong { found, right }, .. } => {
                return Err(Flaw::HeaderChecksum { found, right });
            }
            Network::V6 { .. } if self.udp_checksum == Checksum::Zero => {
                return Err(Flaw::UdpChecksumMissing);
            }
            _ => {}
        }
        match self.udp_checksum {
            Checksum::Wrong { found, right } => Err(Flaw::UdpChecksum { found, right }),
            Checksum::Right | Checksum::Zero => Ok(self),
        }
    }

    /// Channel number, declared data and what follows it, if the payload is long enough for a ChannelData message.
    pub fn channel_data(&self) -> Option<(u16, &[u8], &[u8])> {
        let (header, rest) = self.payload.split_first_chunk::<4>()?;
        let [c0, c1, l0, l1] = *header;
        let (data, padding) = rest.split_at_checked(u16::from_be_bytes([l0, l1]).into())?;
        Some((u16::from_be_bytes([c0, c1]), data, padding))
    }
}

type IpParts<'a> = (Network, [IpAddr; 2], Cursor<'a>);

fn ipv4<'a>(rest: &mut Cursor<'a>) -> Result<IpParts<'a>, Flaw> {
    const WHERE: &str = "the IPv4 header";
    let start = rest.0;
    let [version, traffic_class] = rest.array(WHERE)?;
    let header_length = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_length < 20 {
        return Err(Flaw::Version(version));
    }
    let total = usize::from(rest.u16(WHERE)?);
    let identification = rest.u16(WHERE)?;
    let flags = rest.u16(WHERE)?;
    let [hop_limit, protocol] = rest.array(WHERE)?;
    let found = rest.u16(WHERE)?;
    let source = Ipv4Addr::from(rest.array::<4>(WHERE)?);
    let destination = Ipv4Addr::from(rest.array::<4>(WHERE)?);
    let options = rest.take(header_length - 20, "the IPv4 options")?.to_vec();
    let payload_length = total.checked_sub(header_length).ok_or(Flaw::Truncated(WHERE))?;
    let payload = Cursor(rest.take(payload_length, "the IPv4 packet")?);

    let mut header = start[..header_length].to_vec();
    header[10..12].fill(0);
    let fragment_offset = flags & 0x1fff;
    if fragment_offset != 0 {
        return Err(Flaw::LaterFragment(fragment_offset));
    }
    if protocol != 17 {
        return Err(Flaw::Protocol(protocol));
    }
    let network = Network::V4 {
        traffic_class,
        hop_limit,
        identification,
        reserved_flag: flags & 0x8000 != 0,
        dont_fragment: flags & 0x4000 != 0,
        more_fragments: flags & 0x2000 != 0,
        fragment_offset,
        options,
        checksum: judge(found, internet_checksum(&header)),
    };
    Ok((network, [source.into(), destination.into()], payload))
}

fn ipv6<'a>(rest: &mut Cursor<'a>) -> Result<IpParts<'a>, Flaw> {
    const WHERE: &str = "the IPv6 header";
    let first_word = u32::from_be_bytes(rest.array(WHERE)?);
    if first_word >> 28 != 6 {
        return Err(Flaw::Version((first_word >> 24) as u8));
    }
    let length = rest.u16(WHERE)?;
    let [mut next_header, hop_limit] = rest.array(WHERE)?;
    let source = Ipv6Addr::from(rest.array::<16>(WHERE)?);
    let destination = Ipv6Addr::from(rest.array::<16>(WHERE)?);
    let mut payload = Cursor(rest.take(length.into(), "the IPv6 packet")?);
    let mut extensions = Vec::new();
    // Hop-by-hop options, routing, fragment, destination options.
    while let header_type @ (0 | 43 | 44 | 60) = next_header {
        const WHERE: &str = "an IPv6 extension header";
        let [next, units] = *payload.0.first_chunk().ok_or(Flaw::Truncated(WHERE))?;
        let length = if header_type == 44 { 8 } else { 8 + usize::from(units) * 8 };
        extensions.push((header_type, payload.take(length, WHERE)?.to_vec()));
        next_header = next;
    }
    if next_header != 17 {
        return Err(Flaw::Protocol(next_header));
    }
    let network = Network::V6 {
        traffic_class: (first_word >> 20) as u8,
        hop_limit,
        flow_label: first_word & 0xf_ffff,
        extensions,
    };
    Ok((network, [source.into(), destination.into()], payload))
}

fn judge(found: u16, right: u16) -> Checksum {
    if found == right { Checksum::Right } else { Checksum::Wrong { found, right } }
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, place: &'static str) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Flaw::Truncated(place))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, place: &'static str) -> Result<[u8; N], Flaw> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Flaw::Truncated(place))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self, place: &'static str) -> Result<u16, Flaw> {
        self.array(place).map(u16::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Packet, UdpChecksum};
    use crate::role::{CLIENT, CLIENT_V6, SERVER, SERVER_V6};

    #[test]
    fn what_was_built_is_found() {
        let frame = Packet::new(CLIENT, SERVER)
            .tag(TPID_8021AD, 7)
            .tag(TPID_8021Q, 0x2003)
            .traffic_class(0xb9)
            .hop_limit(9)
            .dont_fragment(false)
            .identification(77)
            .channel_data(0x4001, b"Should not change!!", &[0])
            .trailer(&[1, 2, 3])
            .build();
        let found = dissect(&frame).and_then(Dissected::verify).unwrap();
        assert_eq!(found.tags, [Tag { tpid: TPID_8021AD, tci: 7 }, Tag { tpid: TPID_8021Q, tci: 0x2003 }]);
        assert_eq!((found.source, found.destination), (CLIENT, SERVER));
        assert_eq!(found.channel_data(), Some((0x4001, &b"Should not change!!"[..], &[0][..])));
        assert_eq!(found.trailer, [1, 2, 3]);
        let Network::V4 { traffic_class, hop_limit, identification, dont_fragment, .. } = found.network
        else {
            panic!("not IPv4")
        };
        assert_eq!((traffic_class, hop_limit, identification, dont_fragment), (0xb9, 9, 77, false));
    }

    #[test]
    fn ipv6_with_extension_header_is_found() {
        let frame = Packet::new(CLIENT_V6, SERVER_V6)
            .flow_label(0x12345)
            .extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
            .payload(b"x")
            .build();
        let found = dissect(&frame).and_then(Dissected::verify).unwrap();
        let Network::V6 { flow_label, extensions, .. } = found.network else { panic!("not IPv6") };
        assert_eq!(flow_label, 0x12345);
        assert_eq!(extensions, [(60, vec![17, 0, 1, 4, 0, 0, 0, 0])]);
    }

    #[test]
    fn every_turned_bit_behind_the_ethernet_header_is_noticed() {
        for (source, destination) in [(CLIENT, SERVER), (CLIENT_V6, SERVER_V6)] {
            let good =
                Packet::new(source, destination).channel_data(0x4000, b"Should not change!!", &[]).build();
            let original = dissect(&good).and_then(Dissected::verify).unwrap();
            for bit in 14 * 8..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 0x80 >> (bit % 8);
                let found = dissect(&bad).and_then(Dissected::verify);
                assert_ne!(found.as_ref(), Ok(&original), "bit {bit} of {source}");
            }
        }
    }

    #[test]
    fn wrong_checksums_are_named() {
        let udp =
            Packet::new(CLIENT, SERVER).payload(b"abc").udp_checksum(UdpChecksum::Corrupt(0x0100)).build();
        assert!(matches!(dissect(&udp).unwrap().verify(), Err(Flaw::UdpChecksum { .. })));
        let partial = Packet::new(CLIENT, SERVER).payload(b"abc").udp_checksum(UdpChecksum::Partial).build();
        assert!(matches!(dissect(&partial).unwrap().verify(), Err(Flaw::UdpChecksum { .. })));
        let header = Packet::new(CLIENT, SERVER).corrupt_header_checksum(1).build();
        assert!(matches!(dissect(&header).unwrap().verify(), Err(Flaw::HeaderChecksum { .. })));
        let none = Packet::new(CLIENT_V6, SERVER_V6).udp_checksum(UdpChecksum::Zero).build();
        assert_eq!(dissect(&none).unwrap().verify(), Err(Flaw::UdpChecksumMissing));
    }

    #[test]
    fn lies_about_lengths_are_flaws() {
        let long = Packet::new(CLIENT, SERVER).payload(b"abc").udp_length(12).build();
        assert_eq!(dissect(&long), Err(Flaw::Truncated("the UDP payload")));
        let short = Packet::new(CLIENT, SERVER).payload(b"abc").udp_length(7).build();
        assert_eq!(dissect(&short), Err(Flaw::UdpLength(7)));
        let total = Packet::new(CLIENT, SERVER).payload(b"abc").ip_length(2000).build();
        assert_eq!(dissect(&total), Err(Flaw::Truncated("the IPv4 packet")));
    }
}
