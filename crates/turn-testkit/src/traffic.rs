//! Traffic that can be checked: every payload is numbered and carries a hash of itself, so that loss, duplicates, alterations and
//! reorderings show.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::datagram::receive;
use crate::turn_client::{Received, TurnClient};

pub use self::payload::{MINIMUM_SIZE, NotOurs, Numbered};
pub use self::peer::{Echo, Sink};
pub use self::pump::Pump;

mod payload;
mod peer;
mod pump;

/// How long after the last packet answers may still come.
const GRACE: Duration = Duration::from_secs(1);
/// How long to look for duplicates once everything has come.
const LINGER: Duration = Duration::from_millis(50);

/// One end of a relayed path.
pub trait Carrier {
    /// Sends a payload toward the other end.
    fn send(&mut self, payload: &[u8]) -> io::Result<()>;
    /// The next payload from the other end, if one comes in time.
    fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>>;
}

/// A channel of a TURN client. What arrives on another channel or in a Data indication is an error.
#[derive(Debug)]
pub struct Channel<'a> {
    /// The client.
    pub client: &'a mut TurnClient,
    /// A bound channel.
    pub number: u16,
}

impl Carrier for Channel<'_> {
    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.client.send_channel_data(self.number, payload, &[])
    }

    fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        loop {
            match self.client.receive(deadline.saturating_duration_since(Instant::now()))? {
                None => return Ok(None),
                Some(Received::ChannelData { channel, data, .. }) if channel == self.number => {
                    return Ok(Some(data));
                }
                Some(Received::Response(_)) => {}
                Some(other) => {
                    let stray = format!("came to channel {:#06x}: {other:?}", self.number);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, stray));
                }
            }
        }
    }
}

/// A peer's socket and the relayed transport address that it talks to. What arrives from another address is an error.
#[derive(Debug)]
pub struct Datagrams {
    /// The peer's socket.
    pub socket: UdpSocket,
    /// The relayed transport address.
    pub remote: SocketAddr,
}

impl Carrier for Datagrams {
    fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.socket.send_to(payload, self.remote).map(drop)
    }

    fn receive(&mut self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        match receive(&self.socket, patience)? {
            Some((payload, source)) if source == self.remote => Ok(Some(payload)),
            Some((_, source)) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("came from {source}, not {}", self.remote),
            )),
            None => Ok(None),
        }
    }
}

/// An offered load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Tells one stream from another at a common receiver.
    pub stream: u32,
    /// Payload sizes, gone through in turn; at least [`MINIMUM_SIZE`].
    pub sizes: RangeInclusive<usize>,
    /// Packets per second.
    pub rate: u32,
    /// For how long.
    pub duration: Duration,
}

impl Traffic {
    /// Sends at the offered rate to an [`Echo`], and checks what comes back.
    pub fn round_trips(&self, carrier: &mut impl Carrier) -> io::Result<Report> {
        let mut tally = Tally::default();
        let mut times = Vec::new();
        let start = Instant::now();
        let sent = self.paced(|payload, until| {
            carrier.send(payload)?;
            while let Some(left) = until.checked_duration_since(Instant::now())
                && let Some(payload) = carrier.receive(left)?
            {
                times.extend(tally.count(self.stream, &payload, start));
            }
            Ok(())
        })?;
        while let patience = if tally.received < sent { GRACE } else { LINGER }
            && let Some(payload) = carrier.receive(patience)?
        {
            times.extend(tally.count(self.stream, &payload, start));
        }
        Ok(Report::new(sent, tally, times))
    }

    /// Sends at the offered rate to a [`Sink`]; returns the number of packets.
    pub fn one_way(&self, carrier: &mut impl Carrier) -> io::Result<u64> {
        self.paced(|payload, until| {
            carrier.send(payload)?;
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            Ok(())
        })
    }

    /// Calls `step` for each payload with the time at which the next one is due. A late one is not skipped.
    fn paced(&self, mut step: impl FnMut(&[u8], Instant) -> io::Result<()>) -> io::Result<u64> {
        let start = Instant::now();
        let count = (self.duration.as_secs_f64() * f64::from(self.rate)).round() as u64;
        let sizes = (self.sizes.end() - self.sizes.start() + 1) as u64;
        for number in 0..count {
            let size = self.sizes.start() + (number % sizes) as usize;
            let payload = Numbered { stream: self.stream, number, sent: start.elapsed() }.encode(size);
            let due = start + self.duration.mul_f64((number + 1) as f64 / count as f64);
            step(&payload, due)?;
        }
        Ok(count)
    }
}

/// What has been received of one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Different packets.
    pub received: u64,
    /// Packets beyond the first of the same number.
    pub duplicated: u64,
    /// Packets whose hash or size is wrong.
    pub altered: u64,
    /// Whole packets of another stream.
    pub strays: u64,
    /// Packets that came after one with a higher number.
    pub reordered: u64,
    /// When the last packet came.
    pub last_arrival: Option<Instant>,
    seen: Vec<u64>,
    highest: Option<u64>,
}

impl Tally {
    /// Counts one payload; returns how long it was under way by the clock of `start`, unless it was a duplicate or damaged.
    pub fn count(&mut self, stream: u32, payload: &[u8], start: Instant) -> Option<Duration> {
        let now = Instant::now();
        self.last_arrival = Some(now);
        let packet = match Numbered::decode(payload) {
            Ok(packet) if packet.stream == stream => packet,
            Ok(_) => {
                self.strays += 1;
                return None;
            }
            Err(_) => {
                self.altered += 1;
                return None;
            }
        };
        let (word, bit) = ((packet.number / 64) as usize, 1 << (packet.number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicated += 1;
            return None;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if self.highest > Some(packet.number) {
            self.reordered += 1;
        }
        self.highest = self.highest.max(Some(packet.number));
        now.duration_since(start).checked_sub(packet.sent)
    }

    /// The lowest numbers below `sent` that have not come, at most `limit` of them.
    pub fn missing(&self, sent: u64, limit: usize) -> Vec<u64> {
        let seen = |number: &u64| {
            self.seen.get((number / 64) as usize).is_some_and(|word| word & 1 << (number % 64) != 0)
        };
        (0..sent).filter(|number| !seen(number)).take(limit).collect()
    }

    /// Accepts only what a perfect path would have delivered of `sent` packets, in any order.
    pub fn verify(&self, sent: u64) -> Result<(), TrafficFault> {
        if self.altered > 0 {
            return Err(TrafficFault::Altered(self.altered));
        }
        if self.strays > 0 {
            return Err(TrafficFault::Strays(self.strays));
        }
        if self.duplicated > 0 {
            return Err(TrafficFault::Duplicated(self.duplicated));
        }
        if self.received < sent {
            return Err(TrafficFault::Lost {
                lost: sent - self.received,
                sent,
                first: self.missing(sent, 8),
            });
        }
        Ok(())
    }
}

/// What a path did wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrafficFault {
    /// Packets were altered.
    #[error("{0} packets altered")]
    Altered(u64),
    /// Packets of another stream came.
    #[error("{0} packets of another stream")]
    Strays(u64),
    /// Packets came more than once.
    #[error("{0} packets duplicated")]
    Duplicated(u64),
    /// Packets did not come.
    #[error("{lost} of {sent} packets lost, first {first:?}")]
    Lost {
        /// How many.
        lost: u64,
        /// Of how many.
        sent: u64,
        /// The lowest missing numbers.
        first: Vec<u64>,
    },
}

/// How a [`Traffic::round_trips`] went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Packets sent.
    pub sent: u64,
    /// What came back.
    pub tally: Tally,
    /// Round-trip times in ascending order.
    pub round_trips: Vec<Duration>,
}

impl Report {
    fn new(sent: u64, tally: Tally, mut round_trips: Vec<Duration>) -> Self {
        round_trips.sort_unstable();
        Self { sent, tally, round_trips }
    }

    /// Packets that did not come back.
    pub fn lost(&self) -> u64 {
        self.sent - self.tally.received
    }

    /// Accepts only a path without loss, duplicates or alterations.
    pub fn verify(&self) -> Result<(), TrafficFault> {
        self.tally.verify(self.sent)
    }

    /// The round-trip time that a share of all packets stayed within, 0.5 for the median.
    pub fn round_trip(&self, share: f64) -> Option<Duration> {
        let last = self.round_trips.len().checked_sub(1)?;
        self.round_trips.get((last as f64 * share).round() as usize).copied()
    }
}

#[cfg(test)]
mod tests;
