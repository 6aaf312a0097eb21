//! Which calls there are: what they carry, between whom, and for how long.

use std::time::{Duration, Instant};

use serde::Serialize;
use turn_testkit::lab::Family;

/// What a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A client and a peer, 50 packets a second each way.
    Audio,
    /// The same and 30 frames a second, each of which is a burst of packets.
    Video,
    /// Two clients of the server, 50 packets a second each way.
    Pair,
    /// Two clients of the server with video.
    VideoPair,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Audio, Self::Video, Self::Pair, Self::VideoPair];

    pub fn has_video(self) -> bool {
        matches!(self, Self::Video | Self::VideoPair)
    }

    pub fn is_pair(self) -> bool {
        matches!(self, Self::Pair | Self::VideoPair)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio, client and peer",
            Self::Video => "audio and video, client and peer",
            Self::Pair => "audio, two clients",
            Self::VideoPair => "audio and video, two clients",
        }
    }
}

/// As many calls as there are at a time, and of what kind each of them is.
pub const SLOTS: [Kind; 9] = [
    Kind::Audio,
    Kind::Audio,
    Kind::Audio,
    Kind::Audio,
    Kind::Audio,
    Kind::Video,
    Kind::Pair,
    Kind::Pair,
    Kind::VideoPair,
];

/// A call to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    /// Tells its packets from those of other calls.
    pub stream: u32,
    /// Of the way between client and server, and of that between relay and peer.
    pub families: (Family, Family),
    /// Before it.
    pub pause: Duration,
    pub length: Duration,
    /// Whether it ends without a Refresh, as that of a client does which crashes.
    pub vanishes: bool,
    pub channel: u16,
}

/// The calls of one slot, one after another.
#[derive(Debug)]
pub struct Mix {
    random: fastrand::Rng,
    slot: usize,
    count: u32,
    /// From when on no client goes without a word.
    orderly_from: Instant,
}

impl Mix {
    pub fn new(seed: u64, slot: usize, orderly_from: Instant) -> Self {
        let random = fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(slot as u64));
        Self { random, slot, count: 0, orderly_from }
    }

    /// The first calls start at once, and end at different times.
    pub fn next_call(&mut self) -> Plan {
        let random = &mut self.random;
        let pause = if self.count == 0 { 0.0 } else { random.f64() * 5.0 };
        self.count += 1;
        // Between half a minute and a quarter of an hour, short ones more often: the long ones outlive every lifetime of the server.
        let seconds = 30.0 * 30_f64.powf(random.f64());
        let family = |random: &mut fastrand::Rng| if random.u8(..4) == 0 { Family::V6 } else { Family::V4 };
        let length = Duration::from_secs_f64(seconds);
        let ends_early_enough = Instant::now() + length < self.orderly_from;
        Plan {
            kind: SLOTS[self.slot],
            stream: (self.slot as u32) << 16 | self.count,
            families: (family(random), family(random)),
            pause: Duration::from_secs_f64(pause),
            length,
            vanishes: random.u8(..4) == 0 && ends_early_enough,
            channel: random.u16(0x4000..=0x4fff),
        }
    }
}
