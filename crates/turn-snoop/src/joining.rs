//! What the server is seen doing with data of calls that are older than the snoop.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::{Limits, Refusal};

/// Within this time a direction has to be shown.
const WITHIN: Duration = Duration::from_secs(30);

/// For how long nothing is concluded of a direction that was contradicted.
const BLOCKED_FOR: Duration = Duration::from_secs(60);

/// A datagram's transport addresses and, where it is ChannelData, its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Leg {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    /// Channel number.
    pub channel: Option<u16>,
}

impl Leg {
    /// The way back.
    pub fn reversed(self) -> Self {
        Self { source: self.destination, destination: self.source, ..self }
    }
}

/// What is known of how the data of a datagram came in that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CameIn {
    /// Not, as far as was seen.
    Unseen,
    /// In several ways.
    Ambiguous,
    /// In this way.
    As(Leg),
}

/// The directions of what may be calls, by what leaves.
#[derive(Debug)]
pub(crate) struct Directions {
    limit: usize,
    proofs: usize,
    by_output: HashMap<Leg, Direction>,
    by_input: HashMap<Leg, Leg>,
    /// In the order in which they were begun, so that nothing is kept for ever.
    begun: VecDeque<(Duration, Leg)>,
}

#[derive(Debug)]
struct Direction {
    began: Duration,
    input: Leg,
    /// Different ones, since the server was first seen doing it.
    fingerprints: Vec<u64>,
    is_blocked: bool,
}

impl Directions {
    pub(crate) fn new(limits: Limits) -> Self {
        let Limits { directions: limit, proofs, .. } = limits;
        Self { limit, proofs, by_output: HashMap::new(), by_input: HashMap::new(), begun: VecDeque::new() }
    }

    /// Forgets what began too long ago.
    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        while let Some(&(at, output)) = self.begun.front()
            && now >= at
        {
            self.begun.pop_front();
            // It may have ended before, and begun again.
            if self.by_output.get(&output).is_some_and(|direction| direction.ends() <= now) {
                self.forget(output);
            }
        }
    }

    pub(crate) fn first_deadline(&self) -> Option<Duration> {
        self.begun.front().map(|&(at, _)| at)
    }

    /// A datagram left. True where its direction is shown well enough.
    pub(crate) fn see(
        &mut self,
        now: Duration,
        output: Leg,
        fingerprint: u64,
        came_in: CameIn,
    ) -> Result<bool, Refusal> {
        let input = match came_in {
            CameIn::Ambiguous => return Ok(false),
            // What is not seen coming in comes from somebody else.
            CameIn::Unseen if self.by_output.contains_key(&output) => {
                return self.block(now, [Some(output), None]);
            }
            CameIn::Unseen => return Ok(false),
            CameIn::As(input) => input,
        };
        if input.channel.is_none() && output.channel.is_none() {
            return Ok(false);
        }
        let other = self.by_input.get(&input).copied().filter(|other| *other != output);
        let is_other_input = self.by_output.get(&output).is_some_and(|direction| direction.input != input);
        if other.is_some() || is_other_input {
            return self.block(now, [other, self.by_output.contains_key(&output).then_some(output)]);
        }
        if !self.by_output.contains_key(&output) {
            if self.by_output.len() >= self.limit {
                return Err(Refusal::TooManyCalls);
            }
            let direction = Direction { began: now, input, fingerprints: Vec::new(), is_blocked: false };
            self.begun.push_back((direction.ends(), output));
            self.by_output.insert(output, direction);
            self.by_input.insert(input, output);
        }
        let Some(direction) = self.by_output.get_mut(&output) else { return Ok(false) };
        if direction.is_blocked {
            return Err(Refusal::ContradictedCall);
        }
        if direction.fingerprints.len() < self.proofs && !direction.fingerprints.contains(&fingerprint) {
            direction.fingerprints.push(fingerprint);
        }
        Ok(direction.fingerprints.len() >= self.proofs)
    }

    /// True where the server was seen often enough turning one into the other.
    pub(crate) fn is_shown(&self, input: Leg, output: Leg) -> bool {
        self.by_output.get(&output).is_some_and(|direction| {
            direction.input == input && !direction.is_blocked && direction.fingerprints.len() >= self.proofs
        })
    }

    pub(crate) fn forget(&mut self, output: Leg) {
        if let Some(direction) = self.by_output.remove(&output)
            && self.by_input.get(&direction.input) == Some(&output)
        {
            self.by_input.remove(&direction.input);
        }
    }

    fn block(&mut self, now: Duration, outputs: [Option<Leg>; 2]) -> Result<bool, Refusal> {
        for output in outputs.into_iter().flatten() {
            if let Some(direction) = self.by_output.get_mut(&output)
                && !std::mem::replace(&mut direction.is_blocked, true)
            {
                direction.began = now;
                direction.fingerprints.clear();
                self.begun.push_back((direction.ends(), output));
            }
        }
        Err(Refusal::ContradictedCall)
    }
}

impl Direction {
    fn ends(&self) -> Duration {
        self.began.saturating_add(if self.is_blocked { BLOCKED_FOR } else { WITHIN })
    }
}
