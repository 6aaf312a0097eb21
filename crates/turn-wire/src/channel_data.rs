//! The ChannelData message (RFC 8656 section 12.4).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Be16;

/// The 4 bytes before the application data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ChannelDataHeader {
    /// Channel number, 0x4000 to 0x7fff (RFC 5766 section 11; RFC 8656 section 12 assigns less of it).
    pub number: Be16,
    /// Bytes of application data, without this header and without padding.
    pub length: Be16,
}

impl ChannelDataHeader {
    /// Length in bytes.
    pub const LEN: usize = size_of::<Self>();
}

/// True where a first word can be a channel number: its two top bits are 01 (RFC 8656 section 12, table 3).
#[inline(always)]
pub const fn is_channel_number(word: Be16) -> bool {
    word.value() >> 14 == 0b01
}

/// Bytes of padding that bring application data of this length to a multiple of four (RFC 8656 section 12.5).
#[inline(always)]
pub const fn padding(length: u16) -> u16 {
    length.wrapping_neg() & 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fr14_channel_numbers_are_told_by_their_top_bits() {
        for (word, expected) in [
            (0x0000, false),
            (0x3fff, false),
            (0x4000, true),
            (0x4fff, true),
            (0x5000, true),
            (0x7ffe, true),
            (0x7fff, true),
            (0x8000, false),
            (0xffff, false),
        ] {
            assert_eq!(is_channel_number(Be16::new(word)), expected, "{word:#06x}");
        }
    }

    #[test]
    fn padding_completes_four() {
        assert_eq!([0, 1, 2, 3, 4, 5, 1200, 65535].map(padding), [0, 3, 2, 1, 0, 3, 0, 1]);
    }
}
