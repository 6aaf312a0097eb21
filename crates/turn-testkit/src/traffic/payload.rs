//! A numbered payload that carries a hash of itself.

use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use thiserror::Error;

const MAGIC: [u8; 4] = *b"turn";

/// Magic, stream, number, time and hash.
pub const MINIMUM_SIZE: usize = 32;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The stream.
    pub stream: u32,
    /// The number within the stream, from 0.
    pub number: u64,
    /// When it was sent, after the start of the stream.
    pub sent: Duration,
}

/// Bytes that no [`Numbered::encode`] has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a payload of ours, or altered")]
pub struct NotOurs;

impl Numbered {
    /// The payload, filled up to `size` bytes.
    pub fn encode(&self, size: usize) -> Vec<u8> {
        assert!(size >= MINIMUM_SIZE, "{size} bytes are too few for a payload");
        let mut payload = Vec::with_capacity(size);
        payload.extend_from_slice(&MAGIC);
        payload.extend_from_slice(&self.stream.to_be_bytes());
        payload.extend_from_slice(&self.number.to_be_bytes());
        payload.extend_from_slice(&(self.sent.as_nanos() as u64).to_be_bytes());
        payload.extend_from_slice(&[0; 8]);
        payload.extend((MINIMUM_SIZE..size).map(|at| (self.number as usize + at) as u8));
        let hash = hash(&payload);
        payload[24..32].copy_from_slice(&hash.to_be_bytes());
        payload
    }

    /// Reads a payload and checks its hash, which covers the size too.
    pub fn decode(payload: &[u8]) -> Result<Self, NotOurs> {
        let header: &[u8; MINIMUM_SIZE] = payload.first_chunk().ok_or(NotOurs)?;
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let mut blank = payload.to_vec();
        blank[24..32].fill(0);
        if header[..4] != MAGIC || word(24) != hash(&blank) {
            return Err(NotOurs);
        }
        Ok(Self { stream: word(0) as u32, number: word(8), sent: Duration::from_nanos(word(16)) })
    }
}

fn hash(payload: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(payload);
    hasher.write_usize(payload.len());
    hasher.finish()
}
