//! Reading a frame as far as its UDP header.

use turn_wire::channel_data::ChannelDataHeader;
use turn_wire::checksum::Sum;
use turn_wire::ethernet::{self, EthernetHeader, TagHeader, VlanTags};
use turn_wire::ip::{self, FragmentHeader, Ipv4Header, Ipv6Header};
use turn_wire::udp::UdpHeader;
use turn_wire::{Be16, Be32, IpAddress};

use crate::{Beside, FlowKey, Frame, Reason};

/// A UDP datagram in a frame: well-formed, unfragmented unless the first fragment was asked for, without options or other
/// extension headers.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// The Ethernet header.
    pub ethernet: EthernetHeader,
    /// The VLAN tags.
    pub tags: VlanTags,
    /// Sender.
    pub source: IpAddress,
    /// Receiver.
    pub destination: IpAddress,
    /// The UDP header.
    pub udp: UdpHeader,
    /// What the UDP header is followed by.
    pub data: UdpData,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// An IPv4 packet, not an IPv6 one.
    pub is_v4: bool,
    /// The don't-fragment flag; true for IPv6, which routers never fragment.
    pub dont_fragment: bool,
    /// Bytes of IP packet, where this is the first fragment of a datagram; zero where it is a whole one.
    pub fragment: u16,
}

/// Where the data of a UDP datagram lie in a frame, and how they begin.
#[derive(Clone, Copy, Debug)]
pub struct UdpData {
    /// Offset of the first byte.
    pub at: usize,
    /// Length in bytes.
    pub length: u16,
    /// The first four bytes, which may be a ChannelData header. Zeros, which are none, where there are fewer.
    pub head: ChannelDataHeader,
}

impl Packet {
    /// Reads a frame.
    ///
    /// # Errors
    ///
    /// Names why the frame is not such a datagram.
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F) -> Result<Self, Reason> {
        let Beside { is_train, tag } = frame.beside();
        if is_train {
            return Err(Reason::Train);
        }
        let packet = Self::read_headers::<F, false>(frame)?;
        Ok(Self {
            tags: if F::HAS_TAG_BESIDE { tag } else { packet.tags },
            data: UdpData::read(frame, packet.data.at, packet.data.length),
            ..packet
        })
    }

    /// Reads a frame without a look at how its UDP data begin. Where `FRAGMENTS` says so, it may be the first fragment
    /// of a datagram, and the UDP data are longer than what is there of them.
    ///
    /// # Errors
    ///
    /// As of [`Self::read`].
    #[inline(always)]
    pub fn read_headers<F: Frame, const FRAGMENTS: bool>(frame: &F) -> Result<Self, Reason> {
        let (link, ethertype) = Link::read(frame)?;
        match ethertype {
            ethernet::IPV4 => Self::read_v4::<F, FRAGMENTS>(frame, link),
            ethernet::IPV6 => Self::read_v6::<F, FRAGMENTS>(frame, link),
            _ => Err(Reason::NotIp),
        }
    }

    #[inline(always)]
    fn read_v4<F: Frame, const FRAGMENTS: bool>(frame: &F, link: Link) -> Result<Self, Reason> {
        let udp_at = link.length.wrapping_add(Ipv4Header::LEN);
        let ip = frame.get::<Ipv4Header>(link.length).ok_or(Reason::Malformed)?;
        if ip.protocol != ip::UDP {
            return Err(Reason::NotUdp);
        }
        if ip.version_and_length != Ipv4Header::WITHOUT_OPTIONS {
            return Err(if ip.version_and_length >> 4 == 4 {
                Reason::Ipv4Options
            } else {
                Reason::Malformed
            });
        }
        let is_fragment = ip.fragment.raw() & Ipv4Header::IS_FRAGMENT.raw() != 0;
        if is_fragment && (!FRAGMENTS || ip.fragment.raw() & Ipv4Header::FRAGMENT_OFFSET.raw() != 0) {
            return Err(Reason::Fragment);
        }
        let udp = frame.get::<UdpHeader>(udp_at).ok_or(Reason::Malformed)?;
        let udp_length = ip.total_length.value().checked_sub(Ipv4Header::LEN as u16);
        let is_whole = udp_length == Some(udp.length.value());
        if is_whole == is_fragment
            || ip.sum().fold() != 0xffff
            || ip.fragment.raw() & Ipv4Header::RESERVED_FLAG.raw() != 0
        {
            return Err(Reason::Malformed);
        }
        Ok(Self {
            source: IpAddress::v4(ip.source),
            destination: IpAddress::v4(ip.destination),
            traffic_class: ip.traffic_class,
            hop_limit: ip.ttl,
            is_v4: true,
            dont_fragment: ip.fragment.raw() & Ipv4Header::DONT_FRAGMENT.raw() != 0,
            ..Self::with_data(
                frame,
                link,
                udp,
                udp_at,
                if is_fragment { ip.total_length.value() } else { 0 },
            )?
        })
    }

    #[inline(always)]
    fn read_v6<F: Frame, const FRAGMENTS: bool>(frame: &F, link: Link) -> Result<Self, Reason> {
        let mut udp_at = link.length.wrapping_add(Ipv6Header::LEN);
        let ip = frame.get::<Ipv6Header>(link.length).ok_or(Reason::Malformed)?;
        let mut next_header = ip.next_header;
        let is_fragment = FRAGMENTS && next_header == ip::FRAGMENT;
        if is_fragment {
            let fragment = frame.get::<FragmentHeader>(udp_at).ok_or(Reason::Malformed)?;
            if !fragment.is_first() {
                return Err(Reason::Fragment);
            }
            next_header = fragment.next_header;
            udp_at = udp_at.wrapping_add(FragmentHeader::LEN);
        }
        if next_header != ip::UDP {
            return Err(Reason::NotUdp);
        }
        let udp = frame.get::<UdpHeader>(udp_at).ok_or(Reason::Malformed)?;
        // A v4-mapped address on the wire would be taken for an IPv4 address, so it is not taken at all.
        let (source, destination) = (IpAddress::v6(ip.source), IpAddress::v6(ip.destination));
        let is_whole = ip.payload_length == udp.length;
        if ip.version() != 6 || is_whole == is_fragment || source.is_v4() || destination.is_v4() {
            return Err(Reason::Malformed);
        }
        let fragment = match is_fragment {
            true => ip.payload_length.value().saturating_add(Ipv6Header::LEN as u16),
            false => 0,
        };
        Ok(Self {
            source,
            destination,
            traffic_class: ip.traffic_class(),
            hop_limit: ip.hop_limit,
            is_v4: false,
            dont_fragment: true,
            ..Self::with_data(frame, link, udp, udp_at, fragment)?
        })
    }

    /// The part that both families share: the frame holds the IP packet as a whole.
    #[inline(always)]
    fn with_data<F: Frame>(
        frame: &F,
        Link { ethernet, tags, length: link_length }: Link,
        udp: UdpHeader,
        udp_at: usize,
        fragment: u16,
    ) -> Result<Self, Reason> {
        let data_at = udp_at.wrapping_add(UdpHeader::LEN);
        let data_length = udp.length.value().checked_sub(UdpHeader::LEN as u16).ok_or(Reason::Malformed)?;
        let end = match fragment {
            0 => data_at.wrapping_add(usize::from(data_length)),
            length => link_length.wrapping_add(usize::from(length)),
        };
        frame.behind(end).ok_or(Reason::Malformed)?;
        Ok(Self {
            ethernet,
            tags,
            source: IpAddress::ANY,
            destination: IpAddress::ANY,
            udp,
            data: UdpData { at: data_at, length: data_length, head: ChannelDataHeader::default() },
            traffic_class: 0,
            hop_limit: 0,
            is_v4: false,
            dont_fragment: false,
            fragment,
        })
    }

    /// The key of the packet, taken as a plain datagram.
    #[inline(always)]
    pub fn key(&self) -> FlowKey {
        FlowKey {
            source: self.source,
            destination: self.destination,
            source_port: self.udp.source,
            destination_port: self.udp.destination,
            channel: Be16::new(0),
            reserved: Be16::new(0),
        }
    }

    /// True where the checksum field holds no more than the sum of the pseudo-header.
    ///
    /// Linux leaves it so where the sending device is to complete it, and a frame that came over a virtual
    /// link never met that device. One in 65,536 complete checksums looks the same and is only passed.
    #[inline(always)]
    pub fn has_partial_checksum(&self) -> bool {
        let pseudo_header = Sum::default()
            .add_address(&self.source)
            .add_address(&self.destination)
            .add16(Be16::new(ip::UDP as u16))
            .add16(self.udp.length);
        pseudo_header.fold() == self.udp.checksum.raw()
    }
}

/// What comes before the IP header.
#[derive(Clone, Copy)]
pub(crate) struct Link {
    ethernet: EthernetHeader,
    tags: VlanTags,
    /// In bytes.
    pub(crate) length: usize,
}

impl Link {
    /// Reads it, and returns besides the type of what follows.
    #[inline(always)]
    pub(crate) fn read<F: Frame>(frame: &F) -> Result<(Self, Be16), Reason> {
        let ethernet = frame.get::<EthernetHeader>(0).ok_or(Reason::NotIp)?;
        let mut link = Self { ethernet, tags: VlanTags::NONE, length: EthernetHeader::LEN };
        let mut ethertype = ethernet.ethertype;
        // A third tag is found where the type of an IP packet should be.
        if ethernet::is_tag_protocol(ethertype) && !F::HAS_TAG_BESIDE {
            ethertype = link.read_tag(frame, ethertype)?;
            if ethernet::is_tag_protocol(ethertype) {
                ethertype = link.read_tag(frame, ethertype)?;
            }
        }
        if ethernet::is_tag_protocol(ethertype) { Err(Reason::VlanTagged) } else { Ok((link, ethertype)) }
    }

    /// Reads the next tag, which is of this protocol, and returns the type of what follows.
    #[inline(always)]
    fn read_tag<F: Frame>(&mut self, frame: &F, protocol: Be16) -> Result<Be16, Reason> {
        let tag = frame.get::<TagHeader>(self.length).ok_or(Reason::Malformed)?;
        self.length = self.length.wrapping_add(TagHeader::LEN);
        let inner = VlanTags::one(protocol, tag.control);
        self.tags = self.tags.around(inner).ok_or(Reason::VlanTagged)?;
        Ok(tag.ethertype)
    }
}

impl UdpData {
    /// The data of a datagram that lie here.
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F, at: usize, length: u16) -> Self {
        let has_head = usize::from(length) >= ChannelDataHeader::LEN;
        let head = if has_head { frame.get(at) } else { None };
        Self { at, length, head: head.unwrap_or_default() }
    }

    /// Offset of the end of the datagram.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.at.wrapping_add(usize::from(self.length))
    }

    /// The method and class of a STUN message (RFC 8489 section 5); none where the data is not one.
    #[inline(always)]
    pub fn stun_type<F: Frame>(&self, frame: &F) -> Option<u16> {
        const MAGIC_COOKIE: Be32 = Be32::new(0x2112_a442);
        const HEADER: u16 = 20;
        if self.length < HEADER || self.head.number.value() >> 14 != 0 {
            return None;
        }
        let cookie = frame.get::<Be32>(self.at.wrapping_add(4))?;
        (cookie == MAGIC_COOKIE).then_some(self.head.number.value())
    }
}
