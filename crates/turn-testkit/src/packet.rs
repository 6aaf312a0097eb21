//! Frames built by hand: every header field can be set, and every length and checksum can be made to lie.

use std::net::{IpAddr, SocketAddr};

use crate::checksum::{internet_checksum, udp_checksum};
use crate::role::{CLIENT_MAC, Mac, SERVER_MAC};

/// EtherType of an 802.1Q customer tag.
pub const TPID_8021Q: u16 = 0x8100;
/// EtherType of an 802.1ad service tag.
pub const TPID_8021AD: u16 = 0x88a8;

/// A VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// [`TPID_8021Q`] or [`TPID_8021AD`].
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN identifier.
    pub tci: u16,
}

/// What goes into the UDP checksum field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpChecksum {
    /// The right sum.
    Right,
    /// Zero: none was computed.
    Zero,
    /// The right sum with its bits turned by this mask.
    Corrupt(u16),
    /// The sum over the pseudo-header alone, as a sender leaves it whose device was to complete it.
    Partial,
}

/// A UDP datagram in an Ethernet frame.
#[derive(Clone, Debug)]
pub struct Packet {
    destination_mac: Mac,
    source_mac: Mac,
    tags: Vec<Tag>,
    source: SocketAddr,
    destination: SocketAddr,
    traffic_class: u8,
    hop_limit: u8,
    identification: u16,
    reserved_flag: bool,
    dont_fragment: bool,
    more_fragments: bool,
    fragment_offset: u16,
    options: Vec<u8>,
    header_checksum_mask: u16,
    flow_label: u32,
    extensions: Vec<(u8, Vec<u8>)>,
    protocol: u8,
    udp_checksum: UdpChecksum,
    ip_length: Option<u16>,
    udp_length: Option<u16>,
    payload: Vec<u8>,
    surplus: Vec<u8>,
    trailer: Vec<u8>,
}

impl Packet {
    /// An empty datagram from the client's MAC address to the server's, hop limit 64.
    pub fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            destination_mac: SERVER_MAC,
            source_mac: CLIENT_MAC,
            tags: Vec::new(),
            source,
            destination,
            traffic_class: 0,
            hop_limit: 64,
            identification: 0x1d1d,
            reserved_flag: false,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            options: Vec::new(),
            header_checksum_mask: 0,
            flow_label: 0,
            extensions: Vec::new(),
            protocol: 17,
            udp_checksum: UdpChecksum::Right,
            ip_length: None,
            udp_length: None,
            payload: Vec::new(),
            surplus: Vec::new(),
            trailer: Vec::new(),
        }
    }

    /// Ethernet destination, then source, as on the wire.
    pub fn macs(mut self, destination: Mac, source: Mac) -> Self {
        (self.destination_mac, self.source_mac) = (destination, source);
        self
    }

    /// Adds a VLAN tag inside the tags that are there.
    pub fn tag(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push(Tag { tpid, tci });
        self
    }

    /// TOS (IPv4) or traffic class (IPv6): DSCP and ECN.
    pub fn traffic_class(mut self, traffic_class: u8) -> Self {
        self.traffic_class = traffic_class;
        self
    }

    /// TTL (IPv4) or hop limit (IPv6).
    pub fn hop_limit(mut self, hop_limit: u8) -> Self {
        self.hop_limit = hop_limit;
        self
    }

    /// IPv4 identification.
    pub fn identification(mut self, identification: u16) -> Self {
        self.identification = identification;
        self
    }

    /// IPv4 DF; set from the start.
    pub fn dont_fragment(mut self, dont_fragment: bool) -> Self {
        self.dont_fragment = dont_fragment;
        self
    }

    /// IPv4 MF and the fragment offset in units of 8 bytes.
    pub fn fragment(mut self, more_fragments: bool, offset: u16) -> Self {
        (self.more_fragments, self.fragment_offset) = (more_fragments, offset);
        self
    }

    /// The reserved bit of the IPv4 flags.
    pub fn reserved_flag(mut self) -> Self {
        self.reserved_flag = true;
        self
    }

    /// IPv4 options; a multiple of four bytes, at most 40.
    pub fn options(mut self, options: &[u8]) -> Self {
        assert!(options.len() <= 40 && options.len().is_multiple_of(4), "{} bytes of options", options.len());
        self.options = options.to_vec();
        self
    }

    /// Turns bits of the IPv4 header checksum.
    pub fn corrupt_header_checksum(mut self, mask: u16) -> Self {
        self.header_checksum_mask = mask;
        self
    }

    /// IPv6 flow label.
    pub fn flow_label(mut self, flow_label: u32) -> Self {
        self.flow_label = flow_label & 0xf_ffff;
        self
    }

    /// Adds an IPv6 extension header of the given type; the first byte of `header` is replaced by the type of what follows.
    pub fn extension(mut self, header_type: u8, header: &[u8]) -> Self {
        assert!(
            !header.is_empty() && header.len().is_multiple_of(8),
            "{} bytes of extension header",
            header.len()
        );
        self.extensions.push((header_type, header.to_vec()));
        self
    }

    /// IP protocol or last next header; 17 from the start.
    pub fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// The UDP checksum; right from the start.
    pub fn udp_checksum(mut self, udp_checksum: UdpChecksum) -> Self {
        self.udp_checksum = udp_checksum;
        self
    }

    /// What the IPv4 total length or IPv6 payload length says, whatever is true.
    pub fn ip_length(mut self, length: u16) -> Self {
        self.ip_length = Some(length);
        self
    }

    /// What the UDP length says, whatever is true.
    pub fn udp_length(mut self, length: u16) -> Self {
        self.udp_length = Some(length);
        self
    }

    /// The UDP payload.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// A ChannelData message as the UDP payload, followed by `padding`.
    pub fn channel_data(self, channel: u16, data: &[u8], padding: &[u8]) -> Self {
        self.payload(&channel_data(channel, data, padding))
    }

    /// Bytes inside the IP payload behind the UDP datagram.
    pub fn surplus(mut self, surplus: &[u8]) -> Self {
        self.surplus = surplus.to_vec();
        self
    }

    /// Bytes behind the IP packet, as Ethernet's minimum frame size makes them.
    pub fn trailer(mut self, trailer: &[u8]) -> Self {
        self.trailer = trailer.to_vec();
        self
    }

    /// The frame with an ICMP error in place of the datagram: "fragmentation needed" (RFC 1191) or "packet too big" (RFC 4443). It
    /// quotes an IP packet.
    pub fn too_big(self, mtu: u32, quoted: &[u8]) -> Vec<u8> {
        let (protocol, kind) = if self.source.is_ipv4() { (1, [3, 4]) } else { (58, [2, 0]) };
        // A datagram whose UDP header makes way for that of ICMP, which is as long.
        let mut frame = self.udp_checksum(UdpChecksum::Zero).protocol(protocol).payload(quoted).build();
        let at = frame.len() - quoted.len() - 8;
        frame[at..at + 2].copy_from_slice(&kind);
        frame[at + 2..at + 4].fill(0);
        frame[at + 4..at + 8].copy_from_slice(&mtu.to_be_bytes());
        let checksum = internet_checksum(&frame[at..]);
        frame[at + 2..at + 4].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// The frame, without preamble and frame check sequence.
    pub fn build(&self) -> Vec<u8> {
        let datagram = self.datagram();
        let mut frame = Vec::with_capacity(128 + datagram.len() + self.surplus.len() + self.trailer.len());
        frame.extend_from_slice(&self.destination_mac);
        frame.extend_from_slice(&self.source_mac);
        for tag in &self.tags {
            frame.extend_from_slice(&tag.tpid.to_be_bytes());
            frame.extend_from_slice(&tag.tci.to_be_bytes());
        }
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend_from_slice(&0x0800_u16.to_be_bytes());
                frame.extend(self.ipv4_header(source.octets(), destination.octets(), datagram.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend_from_slice(&0x86dd_u16.to_be_bytes());
                frame.extend(self.ipv6_headers(source.octets(), destination.octets(), datagram.len()));
            }
            (source, destination) => panic!("one packet, one address family: {source} -> {destination}"),
        }
        frame.extend(datagram);
        frame.extend_from_slice(&self.surplus);
        frame.extend_from_slice(&self.trailer);
        frame
    }

    fn datagram(&self) -> Vec<u8> {
        let length = self.udp_length.unwrap_or(8 + self.payload.len() as u16);
        let mut datagram = Vec::with_capacity(8 + self.payload.len());
        datagram.extend_from_slice(&self.source.port().to_be_bytes());
        datagram.extend_from_slice(&self.destination.port().to_be_bytes());
        datagram.extend_from_slice(&length.to_be_bytes());
        datagram.extend_from_slice(&[0, 0]);
        datagram.extend_from_slice(&self.payload);
        let right = udp_checksum(self.source.ip(), self.destination.ip(), &datagram);
        let checksum = match self.udp_checksum {
            UdpChecksum::Right => right,
            UdpChecksum::Zero => 0,
            UdpChecksum::Corrupt(mask) => right ^ mask,
            UdpChecksum::Partial => {
                // Of the pseudo-header alone: the datagram's own bytes as zero, and not complemented.
                let blank = vec![0; datagram.len()];
                !udp_checksum(self.source.ip(), self.destination.ip(), &blank)
            }
        };
        datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        datagram
    }

    fn ipv4_header(&self, source: [u8; 4], destination: [u8; 4], datagram: usize) -> Vec<u8> {
        assert!(self.extensions.is_empty(), "IPv4 has no extension headers");
        let header_length = 20 + self.options.len();
        let total = self.ip_length.unwrap_or((header_length + datagram + self.surplus.len()) as u16);
        let flags = u16::from(self.reserved_flag) << 15
            | u16::from(self.dont_fragment) << 14
            | u16::from(self.more_fragments) << 13
            | self.fragment_offset & 0x1fff;
        let mut header = vec![0x40 | (header_length / 4) as u8, self.traffic_class];
        header.extend_from_slice(&total.to_be_bytes());
        header.extend_from_slice(&self.identification.to_be_bytes());
        header.extend_from_slice(&flags.to_be_bytes());
        header.extend_from_slice(&[self.hop_limit, self.protocol, 0, 0]);
        header.extend_from_slice(&source);
        header.extend_from_slice(&destination);
        header.extend_from_slice(&self.options);
        let checksum = internet_checksum(&header) ^ self.header_checksum_mask;
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        header
    }

    fn ipv6_headers(&self, source: [u8; 16], destination: [u8; 16], datagram: usize) -> Vec<u8> {
        assert!(self.options.is_empty(), "IPv6 has no options in its header");
        let extensions: usize = self.extensions.iter().map(|(_, header)| header.len()).sum();
        let length = self.ip_length.unwrap_or((extensions + datagram + self.surplus.len()) as u16);
        let first_word = 6_u32 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label;
        let mut types: Vec<u8> = self.extensions.iter().map(|(header_type, _)| *header_type).collect();
        types.push(self.protocol);
        let mut headers = first_word.to_be_bytes().to_vec();
        headers.extend_from_slice(&length.to_be_bytes());
        headers.extend_from_slice(&[types[0], self.hop_limit]);
        headers.extend_from_slice(&source);
        headers.extend_from_slice(&destination);
        for ((_, extension), next) in self.extensions.iter().zip(&types[1..]) {
            headers.push(*next);
            headers.extend_from_slice(&extension[1..]);
        }
        headers
    }
}

/// A ChannelData message (RFC 8656 section 12.4), followed by `padding`.
pub fn channel_data(channel: u16, data: &[u8], padding: &[u8]) -> Vec<u8> {
    let mut message = channel.to_be_bytes().to_vec();
    message.extend_from_slice(&(data.len() as u16).to_be_bytes());
    message.extend_from_slice(data);
    message.extend_from_slice(padding);
    message
}
