//! Datagrams that were merged before generic XDP sees them.
//!
//! Where the kernel merges datagrams into a list (`rx-gro-list`) and a virtual link hands the list on, generic XDP gets all of it as one
//! datagram: the lengths in its headers are those of the whole. Nothing tells but the UDP checksum, which is still that of the first
//! datagram alone. (What is merged in the other way, `rx-udp-gro-forwarding`, has a partial checksum.)

use turn_wire::checksum::Sum;
use turn_wire::{Be16, ip};

use crate::Frame;
use crate::packet::Packet;

/// A UDP datagram whose checksum is being made, in steps of as many bytes as a frame hands out at once.
pub struct Summing {
    at: usize,
    length: usize,
    sum: Sum,
}

/// Most steps that a datagram takes.
pub const MOST_STEPS: u32 = (u16::MAX as u32).div_ceil(STEP as u32);
const STEP: usize = size_of::<[u64; 4]>();

impl Summing {
    /// Begins with the headers. None where there is no whole checksum to be compared with: what was merged into a list has one.
    #[inline(always)]
    pub fn begin<F: Frame>(frame: &F) -> Option<Self> {
        let packet = Packet::read_headers::<F, false>(frame).ok()?;
        if packet.udp.checksum == Be16::new(0) || packet.has_partial_checksum() {
            return None;
        }
        let sum = Sum::default()
            .add_address(&packet.source)
            .add_address(&packet.destination)
            .add16(Be16::new(ip::UDP as u16))
            .add16(packet.udp.length)
            .add16(packet.udp.source)
            .add16(packet.udp.destination)
            .add16(packet.udp.length)
            .add16(packet.udp.checksum);
        Some(Self { at: packet.data.at, length: usize::from(packet.data.length), sum })
    }

    /// Adds the bytes of a step. False where there are none.
    ///
    /// Nothing but the sum changes from step to step: the verifier would follow each step anew.
    #[inline(always)]
    pub fn step<F: Frame>(&mut self, frame: &F, number: u32) -> bool {
        let behind = (number as usize).wrapping_mul(STEP);
        let left = self.length.saturating_sub(behind);
        let mut bytes = [0; 4];
        if left == 0 || !frame.copy(self.at.wrapping_add(behind), left.min(STEP), &mut bytes) {
            return false;
        }
        let [a, b, c, d] = bytes;
        self.sum = self.sum.add_bytes(a).add_bytes(b).add_bytes(c).add_bytes(d);
        true
    }

    /// True where the checksum is right, once all bytes are added.
    #[inline(always)]
    pub fn is_right(&self) -> bool {
        self.sum.fold() == 0xffff
    }
}
