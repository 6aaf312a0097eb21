//! From the packet that came in to the packet that leaves.
//!
//! One source for both families on both legs and for both directions. Everything is computed first; then the
//! frame is resized; then the headers are written. Whatever can fail comes before the first write.

use turn_wire::Be16;
use turn_wire::channel_data::ChannelDataHeader;
use turn_wire::checksum::Sum;
use turn_wire::ethernet::{self, EthernetHeader, TagHeader, VlanTags};
use turn_wire::ip::{self, Ipv4Header, Ipv6Header};
use turn_wire::udp::UdpHeader;

use crate::flow::path_flags;
use crate::ingress::ApplicationData;
use crate::packet::Packet;
use crate::{Flow, Frame, Reason, Resizing};

/// The smallest MTU of an IPv6 link (RFC 8200 section 5). A longer packet made of an IPv4 packet that allowed
/// fragmentation would have to be fragmented (RFC 7915 section 4).
const IPV6_MINIMUM_MTU: u16 = 1280;

/// The headers of the packet that leaves, and how the frame has to be resized for them.
///
/// What can be read from the flow is read when it is written: the stack of a BPF program is 512 bytes.
pub struct Translation {
    is_v4: bool,
    tags: VlanTags,
    traffic_class: u8,
    hop_limit: u8,
    udp: UdpHeader,
    channel_data: Option<ChannelDataHeader>,
    resizing: Resizing,
}

impl Translation {
    /// Computes all of it. `look_up_mtu` is called where the packet is longer than what is known to fit.
    ///
    /// # Errors
    ///
    /// Names why the packet has to take the way through the server.
    #[inline(always)]
    pub fn new<F: Frame>(
        frame: &F,
        packet: &Packet,
        data: &ApplicationData,
        flow: &mut Flow,
        look_up_mtu: impl FnOnce(&mut Flow),
    ) -> Result<Self, Reason> {
        if packet.hop_limit <= 1 {
            return Err(Reason::HopLimit);
        }
        let is_v4 = flow.out_destination.is_v4();
        let channel_data = (flow.out_channel != Be16::new(0))
            .then_some(ChannelDataHeader { number: flow.out_channel, length: Be16::new(data.length) });

        let channel_data_length = if channel_data.is_some() { ChannelDataHeader::LEN as u16 } else { 0 };
        let udp_length = data
            .length
            .checked_add(channel_data_length)
            .and_then(|length| length.checked_add(UdpHeader::LEN as u16))
            .ok_or(Reason::TooBig)?;
        let ip_header = if is_v4 { Ipv4Header::LEN as u16 } else { Ipv6Header::LEN as u16 };
        let ip_length = udp_length.checked_add(ip_header).ok_or(Reason::TooBig)?;
        if ip_length > flow.link_mtu
            || (packet.is_v4 && !is_v4 && !packet.dont_fragment && ip_length > IPV6_MINIMUM_MTU)
        {
            return Err(Reason::TooBig);
        }
        if ip_length > flow.out_mtu {
            look_up_mtu(flow);
            if ip_length > flow.out_mtu {
                return Err(Reason::LongerThanSeen);
            }
        }

        let tags = if F::HAS_TAG_BESIDE { VlanTags::NONE } else { flow.out_tags };
        if F::HAS_TAG_BESIDE && flow.out_tags.outer().is_some() {
            return Err(Reason::NoHeadroom);
        }
        let headers = EthernetHeader::LEN
            .wrapping_add(tags.length())
            .wrapping_add(usize::from(ip_header))
            .wrapping_add(UdpHeader::LEN)
            .wrapping_add(usize::from(channel_data_length));
        let udp = UdpHeader {
            source: flow.out_source_port,
            destination: flow.out_destination_port,
            length: Be16::new(udp_length),
            checksum: checksum(frame, packet, data, flow, udp_length, channel_data, is_v4)?,
        };
        Ok(Self {
            is_v4,
            tags,
            traffic_class: packet.traffic_class,
            hop_limit: packet.hop_limit.wrapping_sub(1),
            udp,
            channel_data,
            resizing: Resizing {
                head_by: (data.at as i32).wrapping_sub(headers as i32),
                tail_by: frame
                    .behind(packet.data.end())
                    .ok_or(Reason::Malformed)?
                    .wrapping_add(usize::from(data.padding)),
                from_v4: packet.is_v4,
                to_v4: is_v4,
            },
        })
    }

    /// Resizes the frame and writes the headers.
    ///
    /// # Errors
    ///
    /// [`Reason::NoHeadroom`], and the frame is as it was.
    #[inline(always)]
    pub fn apply<F: Frame>(&self, frame: &mut F, flow: &Flow) -> Result<(), Reason> {
        if !frame.resize(&self.resizing) {
            return Err(Reason::NoHeadroom);
        }
        let ip_at = EthernetHeader::LEN.wrapping_add(self.tags.length());
        let udp_at = ip_at.wrapping_add(if self.is_v4 { Ipv4Header::LEN } else { Ipv6Header::LEN });

        // The headers are written from the last to the first: if the last one fits, so do all.
        let fits = match &self.channel_data {
            Some(header) => {
                frame.put(udp_at.wrapping_add(UdpHeader::LEN), header) && frame.put(udp_at, &self.udp)
            }
            None => frame.put(udp_at, &self.udp),
        };
        if !fits {
            return Err(Reason::NoHeadroom);
        }
        if self.is_v4 {
            frame.put(ip_at, &self.ipv4(flow));
        } else {
            frame.put(ip_at, &self.ipv6(flow));
        }
        let ethernet = EthernetHeader {
            destination: flow.out_mac_destination,
            source: flow.out_mac_source,
            ethertype: self.put_tags(frame),
        };
        frame.put(0, &ethernet);
        if F::HAS_TAG_BESIDE {
            frame.set_tag_beside(flow.out_tags);
        }
        Ok(())
    }

    /// Writes the VLAN tags, and returns what the Ethernet header says that follows it.
    #[inline(always)]
    fn put_tags<F: Frame>(&self, frame: &mut F) -> Be16 {
        let mut ethertype = if self.is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
        if let Some((protocol, control)) = self.tags.innermost() {
            let header = TagHeader { control, ethertype };
            // Not one place from the length of the tags: the verifier of 6.12.117 gets lost in a sum that was zero.
            if self.tags.outer().is_some() {
                frame.put(EthernetHeader::LEN.wrapping_add(TagHeader::LEN), &header);
            } else {
                frame.put(EthernetHeader::LEN, &header);
            }
            ethertype = protocol;
        }
        if let Some((protocol, control)) = self.tags.outer() {
            frame.put(EthernetHeader::LEN, &TagHeader { control, ethertype });
            ethertype = protocol;
        }
        ethertype
    }

    #[inline(always)]
    fn ipv4(&self, flow: &Flow) -> Ipv4Header {
        // Packets that may be fragmented need identifications of their own (RFC 6864 section 4.3).
        let (fragment, identification) = if flow.path_flags & path_flags::DONT_FRAGMENT != 0 {
            (Ipv4Header::DONT_FRAGMENT, 0)
        } else {
            (Be16::new(0), flow.label.wrapping_add(flow.kernel_packets as u32) as u16)
        };
        let header = Ipv4Header {
            version_and_length: Ipv4Header::WITHOUT_OPTIONS,
            traffic_class: self.traffic_class,
            total_length: Be16::new(self.udp.length.value().wrapping_add(Ipv4Header::LEN as u16)),
            identification: Be16::new(identification),
            fragment,
            ttl: self.hop_limit,
            protocol: ip::UDP,
            checksum: Be16::new(0),
            source: flow.out_source.v4_word(),
            destination: flow.out_destination.v4_word(),
        };
        Ipv4Header { checksum: header.sum().field(), ..header }
    }

    #[inline(always)]
    fn ipv6(&self, flow: &Flow) -> Ipv6Header {
        Ipv6Header {
            version_class_label: Ipv6Header::first_word(self.traffic_class, flow.label),
            payload_length: self.udp.length,
            next_header: ip::UDP,
            hop_limit: self.hop_limit,
            source: flow.out_source.words(),
            destination: flow.out_destination.words(),
        }
    }
}

/// The UDP checksum of the packet that leaves: what changes is taken out of the old sum and added (RFC 1624), so
/// that a checksum that was wrong stays wrong and the receiver finds out.
#[inline(always)]
fn checksum<F: Frame>(
    frame: &F,
    packet: &Packet,
    data: &ApplicationData,
    flow: &Flow,
    udp_length: u16,
    channel_data: Option<ChannelDataHeader>,
    is_v4: bool,
) -> Result<Be16, Reason> {
    if packet.udp.checksum == Be16::new(0) {
        return if packet.is_v4 && is_v4 { Ok(Be16::new(0)) } else { Err(Reason::NoChecksum) };
    }
    // The length counts twice: in the pseudo-header and in the UDP header.
    let mut sum = Sum::of_field(packet.udp.checksum)
        .remove_address(&packet.source)
        .remove_address(&packet.destination)
        .remove16(packet.udp.source)
        .remove16(packet.udp.destination)
        .remove16(packet.udp.length)
        .remove16(packet.udp.length)
        .add_address(&flow.out_source)
        .add_address(&flow.out_destination)
        .add16(flow.out_source_port)
        .add16(flow.out_destination_port)
        .add16(Be16::new(udp_length))
        .add16(Be16::new(udp_length));
    if data.at != packet.data.at {
        sum = sum.remove16(packet.data.head.number).remove16(packet.data.head.length);
    }
    if let Some(header) = channel_data {
        sum = sum.add16(header.number).add16(header.length);
    }
    if data.padding != 0 {
        sum = remove_padding(frame, data, sum)?;
    }
    Ok(sum.udp_field())
}

/// Takes 1 to 3 bytes of padding, which need not be zero, out of the sum.
#[inline(always)]
fn remove_padding<F: Frame>(frame: &F, data: &ApplicationData, sum: Sum) -> Result<Sum, Reason> {
    let at = data.at.wrapping_add(usize::from(data.length));
    let mut buffer = [0u64; 4];
    if !frame.copy(at, usize::from(data.padding), &mut buffer) {
        return Err(Reason::Malformed);
    }
    let [first, ..] = buffer;
    let [a, b, c, ..] = first.to_ne_bytes();
    // Bytes that were not there are zero in the buffer, and zero takes nothing away. Behind data of odd length
    // the padding starts with the second byte of a word.
    Ok(if data.length & 1 == 0 {
        sum.remove16(Be16::new(u16::from_be_bytes([a, b]))).remove16(Be16::new(u16::from_be_bytes([c, 0])))
    } else {
        sum.remove16(Be16::new(u16::from(a))).remove16(Be16::new(u16::from_be_bytes([b, c])))
    })
}
