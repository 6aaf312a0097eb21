//! Recognising application data that was seen before.

use crate::frame::Frame;

/// Bytes of application data that enter a fingerprint.
const COVERED: usize = 32;

/// A hash over the length and the first 32 bytes of the application data; none where the frame ends before.
///
/// Whoever can choose two payloads with equal fingerprints can as well send the same payload twice, so the hash
/// need not withstand anyone: it only has to tell the packets of one flow from each other.
#[inline(always)]
pub fn fingerprint<F: Frame>(frame: &F, at: usize, length: u16) -> Option<u64> {
    let mut words = [0u64; 4];
    let covered = usize::from(length).min(COVERED);
    if covered > 0 && !frame.copy(at, covered, &mut words) {
        return None;
    }
    let [a, b, c, d] = words;
    let hash = mix(mix(mix(mix(u64::from(length), a), b), c), d);
    Some(hash)
}

/// One step of a multiplicative hash (the odd constant is 2^64 divided by the golden ratio).
#[inline(always)]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 29)
}
