//! IP addresses and the IPv4 (RFC 791) and IPv6 (RFC 8200) headers.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Sum;
use crate::{Be16, Be32};

/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMP (RFC 792).
pub const ICMP: u8 = 1;
/// Protocol number of ICMP for IPv6 (RFC 4443).
pub const ICMPV6: u8 = 58;
/// Protocol number of the header of a fragment of an IPv6 packet.
pub const FRAGMENT: u8 = 44;

/// An address of either family; an IPv4 address in its IPv4-mapped form (RFC 4291 section 2.5.5.2).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct IpAddress([Be32; 4]);

impl IpAddress {
    /// No address: stands for any address in a key.
    pub const ANY: Self = Self([Be32::new(0); 4]);

    /// From the word of an IPv4 header.
    #[inline(always)]
    pub const fn v4(word: Be32) -> Self {
        Self([Be32::new(0), Be32::new(0), Be32::new(0xffff), word])
    }

    /// From the words of an IPv6 header.
    #[inline(always)]
    pub const fn v6(words: [Be32; 4]) -> Self {
        Self(words)
    }

    /// The four words; an IPv4 address is the last of them.
    #[inline(always)]
    pub const fn words(&self) -> [Be32; 4] {
        self.0
    }

    /// The word of an IPv4 header.
    #[inline(always)]
    pub const fn v4_word(&self) -> Be32 {
        let [_, _, _, word] = self.0;
        word
    }

    /// True for an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [a, b, c, _] = self.0;
        a.raw() == 0 && b.raw() == 0 && c.raw() == Be32::new(0xffff).raw()
    }
}

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        zerocopy::transmute!(octets)
    }
}

impl From<IpAddress> for IpAddr {
    fn from(address: IpAddress) -> Self {
        if address.is_v4() {
            IpAddr::V4(Ipv4Addr::from(address.v4_word().value()))
        } else {
            let octets: [u8; 16] = zerocopy::transmute!(address);
            IpAddr::V6(Ipv6Addr::from(octets))
        }
    }
}

impl fmt::Debug for IpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// An IPv4 header without options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version 4 and header length 5, in one byte.
    pub version_and_length: u8,
    /// DSCP (6 bits) and ECN (2 bits).
    pub traffic_class: u8,
    /// Bytes of header and payload.
    pub total_length: Be16,
    /// Tells the fragments of one datagram from those of others (RFC 6864).
    pub identification: Be16,
    /// Flags (3 bits) and offset in units of 8 bytes.
    pub fragment: Be16,
    /// Routers left to pass.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Over this header.
    pub checksum: Be16,
    /// Sender.
    pub source: Be32,
    /// Receiver.
    pub destination: Be32,
}

impl Ipv4Header {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
    /// Version 4 and a header of five words, without options.
    pub const WITHOUT_OPTIONS: u8 = 0x45;
    /// The flag that means nothing and has to be zero.
    pub const RESERVED_FLAG: Be16 = Be16::new(0x8000);
    /// The flag that forbids routers to fragment.
    pub const DONT_FRAGMENT: Be16 = Be16::new(0x4000);
    /// The bits that are set in fragments only: more-fragments flag and offset.
    pub const IS_FRAGMENT: Be16 = Be16::new(0x3fff);
    /// The offset of a fragment, which is zero in the first one.
    pub const FRAGMENT_OFFSET: Be16 = Be16::new(0x1fff);

    /// The sum of all words of the header, its checksum included: 0xffff where the checksum is right.
    #[inline(always)]
    pub fn sum(&self) -> Sum {
        let Self { total_length, identification, fragment, checksum, source, destination, .. } = *self;
        Sum::default()
            .add16(Be16::new(u16::from_be_bytes([self.version_and_length, self.traffic_class])))
            .add16(total_length)
            .add16(identification)
            .add16(fragment)
            .add16(Be16::new(u16::from_be_bytes([self.ttl, self.protocol])))
            .add16(checksum)
            .add32(source)
            .add32(destination)
    }
}

/// The fixed IPv6 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_label: Be32,
    /// Bytes after this header.
    pub payload_length: Be16,
    /// Protocol of what follows.
    pub next_header: u8,
    /// Routers left to pass.
    pub hop_limit: u8,
    /// Sender.
    pub source: [Be32; 4],
    /// Receiver.
    pub destination: [Be32; 4],
}

impl Ipv6Header {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The first word: version 6, this traffic class and the low 20 bits of this flow label.
    #[inline(always)]
    pub const fn first_word(traffic_class: u8, flow_label: u32) -> Be32 {
        Be32::new(6 << 28 | (traffic_class as u32) << 20 | flow_label & 0xf_ffff)
    }

    /// The 4 bits of the version.
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        (self.version_class_label.value() >> 28) as u8
    }

    /// The 8 bits of DSCP and ECN.
    #[inline(always)]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_label.value() >> 20) as u8
    }
}

/// The header of a fragment of an IPv6 packet (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FragmentHeader {
    /// Protocol of what was cut.
    pub next_header: u8,
    /// Zero.
    pub reserved: u8,
    /// Offset in bytes, a multiple of 8, and the more-fragments flag.
    pub offset_and_more: Be16,
    /// Tells the fragments of one packet from those of others.
    pub identification: Be32,
}

impl FragmentHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();

    /// The first of several fragments.
    #[inline(always)]
    pub const fn is_first(&self) -> bool {
        const MORE: u16 = 1;
        const OFFSET_AND_MORE: u16 = 0xfff9;
        self.offset_and_more.value() & OFFSET_AND_MORE == MORE
    }
}

const _: () = assert!(Ipv4Header::LEN == 20 && Ipv6Header::LEN == 40 && FragmentHeader::LEN == 8);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_survive_the_way_there_and_back(v4 in any::<u32>(), v6 in any::<u128>()) {
            prop_assume!(Ipv6Addr::from(v6).to_ipv4_mapped().is_none());
            for address in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                prop_assert_eq!(IpAddr::from(IpAddress::from(address)), address);
                prop_assert_eq!(IpAddress::from(address).is_v4(), address.is_ipv4());
            }
        }
    }
}
