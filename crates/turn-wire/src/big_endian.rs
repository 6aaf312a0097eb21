//! Integers in network byte order, so that byte order is a type and not a habit.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A 16-bit integer in network byte order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Be16(u16);

impl Be16 {
    /// From a value in host byte order.
    #[inline(always)]
    pub const fn new(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The value in host byte order.
    #[inline(always)]
    pub const fn value(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes as they lie in memory, read as a native integer.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// From the two bytes as they lie in memory, read as a native integer.
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

impl fmt::Debug for Be16 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.value())
    }
}

/// A 32-bit integer in network byte order.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Be32(u32);

impl Be32 {
    /// From a value in host byte order.
    #[inline(always)]
    pub const fn new(value: u32) -> Self {
        Self(value.to_be())
    }

    /// The value in host byte order.
    #[inline(always)]
    pub const fn value(self) -> u32 {
        u32::from_be(self.0)
    }

    /// The four bytes as they lie in memory, read as a native integer.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Be32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value())
    }
}
