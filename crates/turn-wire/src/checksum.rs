//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).

use crate::{Be16, Be32, IpAddress};

/// A one's complement sum in the making.
///
/// Words are added as they lie in memory: the sum of byte-swapped words is the byte-swapped sum
/// (RFC 1071 section 2), so no word is ever swapped. Sixty-four bits hold the carries of 2^32 words.
#[derive(Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum that a checksum field stands for: its complement (RFC 1624, equation 3).
    #[inline(always)]
    pub fn of_field(field: Be16) -> Self {
        Self::default().add16(Be16::from_raw(!field.raw()))
    }

    /// Adds a 16-bit word.
    #[inline(always)]
    #[must_use]
    pub fn add16(self, word: Be16) -> Self {
        Self(self.0.wrapping_add(u64::from(word.raw())))
    }

    /// Adds a 32-bit word, which is two 16-bit words.
    #[inline(always)]
    #[must_use]
    pub fn add32(self, word: Be32) -> Self {
        Self(self.0.wrapping_add(u64::from(word.raw())))
    }

    /// Adds eight bytes, given as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub fn add_bytes(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes & 0xffff_ffff).wrapping_add(bytes >> 32))
    }

    /// Takes a 16-bit word out of the sum.
    #[inline(always)]
    #[must_use]
    pub fn remove16(self, word: Be16) -> Self {
        Self(self.0.wrapping_add(u64::from(!word.raw())))
    }

    /// Takes a 32-bit word out of the sum.
    #[inline(always)]
    #[must_use]
    pub fn remove32(self, word: Be32) -> Self {
        Self(self.0.wrapping_add(u64::from(!word.raw())))
    }

    /// Adds an address. An IPv4 address counts the same with and without its mapped prefix, since 0xffff is
    /// the other zero of one's complement.
    #[inline(always)]
    #[must_use]
    pub fn add_address(self, address: &IpAddress) -> Self {
        let [a, b, c, d] = address.words();
        self.add32(a).add32(b).add32(c).add32(d)
    }

    /// Takes an address out of the sum.
    #[inline(always)]
    #[must_use]
    pub fn remove_address(self, address: &IpAddress) -> Self {
        let [a, b, c, d] = address.words();
        self.remove32(a).remove32(b).remove32(c).remove32(d)
    }

    /// The sum folded to 16 bits.
    #[inline(always)]
    pub fn fold(self) -> u16 {
        let sum = (self.0 & 0xffff_ffff).wrapping_add(self.0 >> 32);
        let sum = (sum & 0xffff).wrapping_add((sum >> 16) & 0xffff).wrapping_add(sum >> 32);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        let sum = (sum & 0xffff).wrapping_add(sum >> 16);
        sum as u16
    }

    /// The value of a checksum field over these words.
    #[inline(always)]
    pub fn field(self) -> Be16 {
        Be16::from_raw(!self.fold())
    }

    /// The value of a UDP checksum field over these words: zero is sent as all ones, since zero means that
    /// there is no checksum (RFC 768).
    #[inline(always)]
    pub fn udp_field(self) -> Be16 {
        match !self.fold() {
            0 => Be16::from_raw(0xffff),
            field => Be16::from_raw(field),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc_1071_section_3_example() {
        let sum = [0x0001, 0xf203, 0xf4f5, 0xf6f7].iter().fold(Sum::default(), |s, w| s.add16(Be16::new(*w)));
        assert_eq!(Be16::from_raw(sum.fold()).value(), 0xddf2);
    }

    proptest! {
        #[test]
        fn a_sum_of_words_is_the_reference(words in proptest::collection::vec(any::<u32>(), 1..400)) {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_be_bytes()).collect();
            let sum = words.iter().fold(Sum::default(), |s, w| s.add32(Be32::new(*w)));
            prop_assert_eq!(sum.field().value(), reference(&bytes));
        }

        #[test]
        fn an_update_is_a_recomputation(old in any::<[u16; 8]>(), rest in any::<[u16; 4]>(), new in any::<[u16; 8]>()) {
            prop_assume!(rest.iter().any(|w| *w != 0) && rest.iter().any(|w| *w != 0xffff));
            let bytes = |words: &[u16]| words.iter().chain(&rest).flat_map(|w| w.to_be_bytes()).collect::<Vec<_>>();
            let before = Be16::new(reference(&bytes(&old)));
            let mut sum = Sum::of_field(before);
            for (old, new) in old.iter().zip(&new) {
                sum = sum.remove16(Be16::new(*old)).add16(Be16::new(*new));
            }
            prop_assert_eq!(sum.field().value(), reference(&bytes(&new)));
        }
    }
}
