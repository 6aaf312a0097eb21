//! What routers say about packets that were too big for them.
//!
//! The host hears it too, and from then on sends longer packets of the server in fragments. That would show only when the
//! server sends one, which it seldom does of a flow that is relayed here.

use turn_wire::channel_data::ChannelDataHeader;
use turn_wire::ethernet;
use turn_wire::ip::{self, Ipv4Header, Ipv6Header};
use turn_wire::udp::UdpHeader;
use turn_wire::{Be16, Be32, IpAddress};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::egress;
use crate::packet::{Link, UdpData};
use crate::{FlowKey, Flows, Frame, LeaseTerms, Reason};

/// An ICMP error that says how much the next link takes.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct TooBigHeader {
    kind: u8,
    code: u8,
    checksum: Be16,
    /// Bytes of IP packet; with ICMP for IPv4 in the lower half (RFC 1191 section 4), and zero from routers that do not say.
    mtu: Be32,
}

impl TooBigHeader {
    const LEN: usize = size_of::<Self>();

    /// Fragmentation needed and DF set (RFC 792).
    #[inline(always)]
    fn is_v4(&self) -> bool {
        (self.kind, self.code) == (3, 4)
    }

    /// Packet too big (RFC 4443 section 3.2).
    #[inline(always)]
    fn is_v6(&self) -> bool {
        (self.kind, self.code) == (2, 0)
    }
}

/// The start of a packet that was too big.
struct Quoted {
    source: IpAddress,
    destination: IpAddress,
    /// In bytes, of the whole packet.
    length: u16,
    udp_at: usize,
    /// What the next link takes, in bytes; zero where it is not said.
    mtu: u32,
}

/// Looks at a packet that came in and is not UDP. If it says that a packet of a known flow was too big, the flow's packets
/// get no longer than that until the server is seen to send longer ones.
#[inline(always)]
pub fn hear<F: Frame, T: Flows>(frame: &F, flows: &T, terms: &LeaseTerms) -> Reason {
    match quoted(frame).and_then(|quoted| heed(frame, flows, terms, &quoted)) {
        Some(()) => Reason::PathMtu,
        None => Reason::NotUdp,
    }
}

#[inline(always)]
fn quoted<F: Frame>(frame: &F) -> Option<Quoted> {
    let (link, ethertype) = Link::read(frame).ok()?;
    match ethertype {
        ethernet::IPV4 => {
            let ip = frame.get::<Ipv4Header>(link.length)?;
            let at = link.length.wrapping_add(Ipv4Header::LEN);
            let is_plain = ip.version_and_length == Ipv4Header::WITHOUT_OPTIONS
                && ip.fragment.raw() & Ipv4Header::IS_FRAGMENT.raw() == 0;
            if !is_plain || ip.protocol != ip::ICMP {
                return None;
            }
            let icmp = frame.get::<TooBigHeader>(at).filter(TooBigHeader::is_v4)?;
            let at = at.wrapping_add(TooBigHeader::LEN);
            let ip = frame.get::<Ipv4Header>(at)?;
            let is_plain = ip.version_and_length == Ipv4Header::WITHOUT_OPTIONS
                && ip.fragment.raw() & Ipv4Header::IS_FRAGMENT.raw() == 0;
            (is_plain && ip.protocol == ip::UDP).then_some(Quoted {
                source: IpAddress::v4(ip.source),
                destination: IpAddress::v4(ip.destination),
                length: ip.total_length.value(),
                udp_at: at.wrapping_add(Ipv4Header::LEN),
                mtu: icmp.mtu.value() & 0xffff,
            })
        }
        ethernet::IPV6 => {
            let ip = frame.get::<Ipv6Header>(link.length)?;
            if ip.next_header != ip::ICMPV6 {
                return None;
            }
            let at = link.length.wrapping_add(Ipv6Header::LEN);
            let icmp = frame.get::<TooBigHeader>(at).filter(TooBigHeader::is_v6)?;
            let at = at.wrapping_add(TooBigHeader::LEN);
            let ip = frame.get::<Ipv6Header>(at)?;
            (ip.version() == 6 && ip.next_header == ip::UDP).then_some(Quoted {
                source: IpAddress::v6(ip.source),
                destination: IpAddress::v6(ip.destination),
                length: ip.payload_length.value().saturating_add(Ipv6Header::LEN as u16),
                udp_at: at.wrapping_add(Ipv6Header::LEN),
                mtu: icmp.mtu.value(),
            })
        }
        _ => None,
    }
}

#[inline(always)]
fn heed<F: Frame, T: Flows>(frame: &F, flows: &T, terms: &LeaseTerms, quoted: &Quoted) -> Option<()> {
    let udp = frame.get::<UdpHeader>(quoted.udp_at)?;
    let at = quoted.udp_at.wrapping_add(UdpHeader::LEN);
    let data = UdpData {
        at,
        length: udp.length.value().checked_sub(UdpHeader::LEN as u16)?,
        // Routers need not quote that much. Then it cannot be told which channel of a client it was.
        head: frame.get::<ChannelDataHeader>(at).unwrap_or_default(),
    };
    let key = FlowKey {
        source: quoted.source,
        destination: quoted.destination,
        source_port: udp.source,
        destination_port: udp.destination,
        channel: Be16::new(0),
        reserved: Be16::new(0),
    };
    let owner = egress::owner(flows, key, &data)?;
    let mut flow = flows.flow(&owner)?;
    let shorter = quoted.length.checked_sub(1)?;
    let length = match quoted.mtu {
        mtu @ 1.. if mtu < u32::from(shorter) => mtu as u16,
        _ => shorter,
    };
    flow.told_too_big(length, flows.now(), terms);
    Some(())
}
