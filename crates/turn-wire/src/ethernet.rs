//! Ethernet II headers and IEEE 802.1Q tags.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Be16;

/// A 48-bit MAC address, as three words so that it is compared and copied in words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MacAddress(pub [Be16; 3]);

/// The 14 bytes at the start of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct EthernetHeader {
    /// The receiver on this link.
    pub destination: MacAddress,
    /// The sender on this link.
    pub source: MacAddress,
    /// What the frame carries, or the kind of tag that follows.
    pub ethertype: Be16,
}

impl EthernetHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
}

/// EtherType of IPv4.
pub const IPV4: Be16 = Be16::new(0x0800);
/// EtherType of IPv6.
pub const IPV6: Be16 = Be16::new(0x86dd);
/// Tag protocol of a customer VLAN (802.1Q).
pub const VLAN: Be16 = Be16::new(0x8100);
/// Tag protocol of a service VLAN (802.1ad).
pub const SERVICE_VLAN: Be16 = Be16::new(0x88a8);

/// True where a tag follows, and not what the frame carries.
#[inline(always)]
pub const fn is_tag_protocol(ethertype: Be16) -> bool {
    ethertype.raw() == VLAN.raw() || ethertype.raw() == SERVICE_VLAN.raw()
}

/// The 4 bytes after a tag protocol (IEEE 802.1Q).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TagHeader {
    /// Priority (3 bits), drop eligibility (1 bit), VLAN identifier (12 bits).
    pub control: Be16,
    /// What the frame carries, or the kind of tag that follows.
    pub ethertype: Be16,
}

impl TagHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
}

/// The VLAN tags of a frame, up to two, in one word: of each the tag protocol and then its control information, the inner
/// one in the lower half. Zero: no tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct VlanTags(u64);

impl VlanTags {
    /// No tags.
    pub const NONE: Self = Self(0);

    /// One tag, of a protocol that is one ([`is_tag_protocol`]).
    #[inline(always)]
    #[must_use]
    pub const fn one(protocol: Be16, control: Be16) -> Self {
        Self((protocol.value() as u64) << 16 | control.value() as u64)
    }

    /// These tags and others inside them; none where that makes more than two.
    #[inline(always)]
    #[must_use]
    pub const fn around(self, inner: Self) -> Option<Self> {
        if self.0 == 0 {
            Some(inner)
        } else if inner.0 == 0 {
            Some(self)
        } else if (self.0 | inner.0) >> 32 == 0 {
            Some(Self(self.0 << 32 | inner.0))
        } else {
            None
        }
    }

    /// The tags by which frames are told apart: without priority and drop eligibility, which may differ from frame to frame.
    #[inline(always)]
    #[must_use]
    pub const fn without_priority(self) -> Self {
        Self(self.0 & 0xffff_0fff_ffff_0fff)
    }

    /// Bytes that they take in a frame: four for each tag, whose protocol has its top bit set. Without a branch, since the
    /// verifier would follow each one to the end.
    #[inline(always)]
    pub const fn length(self) -> usize {
        ((self.0 >> 29 & 4) as usize).wrapping_add(self.length_of_outer())
    }

    /// Of these bytes those of a second tag.
    #[inline(always)]
    pub const fn length_of_outer(self) -> usize {
        (self.0 >> 61) as usize & 4
    }

    /// Protocol and control information of the innermost tag.
    #[inline(always)]
    pub const fn innermost(self) -> Option<(Be16, Be16)> {
        Self::tag(self.0 as u32)
    }

    /// Protocol and control information of the tag around that.
    #[inline(always)]
    pub const fn outer(self) -> Option<(Be16, Be16)> {
        Self::tag((self.0 >> 32) as u32)
    }

    const fn tag(word: u32) -> Option<(Be16, Be16)> {
        if word == 0 { None } else { Some((Be16::new((word >> 16) as u16), Be16::new(word as u16))) }
    }
}

const _: () = assert!(EthernetHeader::LEN == 14 && TagHeader::LEN == 4);

#[cfg(test)]
mod tests {
    use super::*;

    const CUSTOMER: VlanTags = VlanTags::one(VLAN, Be16::new(0xe005));
    const SERVICE: VlanTags = VlanTags::one(SERVICE_VLAN, Be16::new(0x1fff));

    #[test]
    fn two_tags_fit_around_each_other_and_a_third_does_not() {
        let both = SERVICE.around(CUSTOMER).unwrap();
        assert_eq!([VlanTags::NONE, CUSTOMER, both].map(VlanTags::length), [0, 4, 8]);
        assert_eq!([VlanTags::NONE, CUSTOMER, both].map(VlanTags::length_of_outer), [0, 0, 4]);
        for tags in [VlanTags::NONE, CUSTOMER, both] {
            assert_eq!(VlanTags::NONE.around(tags), Some(tags));
            assert_eq!(tags.around(VlanTags::NONE), Some(tags));
        }
        assert_eq!([both.around(CUSTOMER), CUSTOMER.around(both), both.around(both)], [None; 3]);
        assert_eq!(both.innermost(), Some((VLAN, Be16::new(0xe005))));
        assert_eq!(both.outer(), Some((SERVICE_VLAN, Be16::new(0x1fff))));
        assert_eq!((CUSTOMER.innermost(), CUSTOMER.outer()), (both.innermost(), None));
        assert_eq!((VlanTags::NONE.innermost(), VlanTags::NONE.outer()), (None, None));
    }

    #[test]
    fn priority_and_drop_eligibility_do_not_tell_frames_apart() {
        let [plain, other_id, other_protocol] = [(VLAN, 0x0005), (VLAN, 0x0006), (SERVICE_VLAN, 0x0005)]
            .map(|(of, id)| VlanTags::one(of, Be16::new(id)));
        assert_eq!(CUSTOMER.without_priority(), plain);
        assert_eq!(
            SERVICE.around(CUSTOMER).unwrap().without_priority(),
            SERVICE.without_priority().around(plain).unwrap()
        );
        assert_eq!(SERVICE.without_priority(), VlanTags::one(SERVICE_VLAN, Be16::new(0x0fff)));
        assert_ne!(plain.without_priority(), other_id.without_priority());
        assert_ne!(plain.without_priority(), other_protocol.without_priority());
    }
}
