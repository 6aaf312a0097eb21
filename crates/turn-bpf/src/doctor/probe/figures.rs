//! What the packets of a call tell.

use std::time::Duration;

use serde::Serialize;

use super::media::Log;

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Packets sent by the client.
    pub sent: u32,
    /// Packets that the peer got.
    pub at_peer: u32,
    /// Packets that came back to the client.
    pub returned: u32,
    /// Which part of the packets did not come back, 0 to 1.
    pub loss: f64,
    /// Packets that came back after one that was sent later.
    pub reordered: u32,
    /// From the client through the server to the peer, and the same way back. None where nothing came back.
    pub round_trip: Option<RoundTrips>,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RoundTrips {
    /// The shortest.
    pub min_us: u64,
    /// Half of them are no longer.
    pub median_us: u64,
    /// 95 of 100 are no longer.
    pub p95_us: u64,
    /// 99 of 100 are no longer.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
    /// The mean difference between the round trips of two packets in a row.
    pub jitter_us: u64,
}

impl Figures {
    /// Counts.
    pub fn of(log: &Log) -> Self {
        let (sent, returned) = (log.sent(), log.returned());
        let lost = sent.saturating_sub(returned);
        Self {
            sent,
            at_peer: log.arrived(),
            returned,
            loss: if sent == 0 { 0.0 } else { f64::from(lost) / f64::from(sent) },
            reordered: log.reordered(),
            round_trip: RoundTrips::of(&log.round_trips().collect::<Vec<_>>()),
        }
    }
}

impl RoundTrips {
    /// Of round trips in the order of their packets.
    pub fn of(times: &[Duration]) -> Option<Self> {
        let differences: Duration = times.windows(2).map(|two| two[0].abs_diff(two[1])).sum();
        let pairs = u32::try_from(times.len().saturating_sub(1)).ok()?.max(1);
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        // The nearest rank: the first that at least so many of a hundred do not exceed.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).map(|time| microseconds(*time))
        };
        Some(Self {
            min_us: sorted.first().map(|time| microseconds(*time))?,
            median_us: at(50)?,
            p95_us: at(95)?,
            p99_us: at(99)?,
            max_us: at(100)?,
            jitter_us: microseconds(differences / pairs),
        })
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_of_a_hundred_packets() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        let expected = RoundTrips {
            min_us: 1000,
            median_us: 50_000,
            p95_us: 95_000,
            p99_us: 99_000,
            max_us: 100_000,
            jitter_us: 1000,
        };
        assert_eq!(RoundTrips::of(&times), Some(expected));
    }

    #[test]
    fn round_trips_of_few() {
        assert_eq!(RoundTrips::of(&[]), None);
        let one = RoundTrips::of(&[Duration::from_micros(7)]).unwrap();
        assert_eq!((one.min_us, one.median_us, one.p99_us, one.max_us, one.jitter_us), (7, 7, 7, 7, 0));
        let [short, long] = [10, 40].map(Duration::from_micros);
        let three = RoundTrips::of(&[short, long, short]).unwrap();
        assert_eq!((three.median_us, three.p95_us, three.jitter_us), (10, 40, 30));
    }
}
