//! What the drivers have in common: what they are asked for, what they send, and what they say in the end.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

/// Before the packets that count: time for permissions and channels, with a few packets that do not count.
pub const WARM_UP: Duration = Duration::from_millis(1500);
/// Between two packets of the warm-up.
pub const GREETING_INTERVAL: Duration = Duration::from_millis(50);
/// After the last packet: how long others may still come.
pub const GRACE: Duration = Duration::from_millis(800);
/// What does not count.
pub const GREETING: &[u8] = b"a greeting, which does not count";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The TURN server.
    pub server: SocketAddr,
    /// The client's own address.
    pub local: std::net::IpAddr,
    pub user: String,
    pub password: String,
    pub realm: String,
    /// A peer that echoes; without one there are two clients with each other.
    pub peer: Option<SocketAddr>,
    /// Packets a second.
    pub rate: u32,
    pub seconds: u32,
}

impl Plan {
    /// From `--server A --local A --user U --password P --realm R [--peer A] --rate N --seconds N`.
    pub fn from_arguments() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let find = |name: &str| {
            let pair = arguments.chunks_exact(2).find(|pair| pair[0].strip_prefix("--") == Some(name));
            pair.map(|pair| pair[1].as_str())
        };
        let get = |name: &str| find(name).with_context(|| format!("--{name} is missing"));
        if arguments.len() % 2 != 0 {
            bail!("an argument without a value");
        }
        Ok(Self {
            server: get("server")?.parse()?,
            local: get("local")?.parse()?,
            user: get("user")?.into(),
            password: get("password")?.into(),
            realm: get("realm")?.into(),
            peer: find("peer").map(str::parse).transpose()?,
            rate: get("rate")?.parse()?,
            seconds: get("seconds")?.parse()?,
        })
    }

    /// Packets of each sender.
    pub fn packets(&self) -> u64 {
        u64::from(self.rate) * u64::from(self.seconds)
    }

    /// Between two packets.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.rate
    }
}

/// Payload `number` of a sender: sizes and bytes change from one to the next, and tell how they have to be.
pub fn payload(stream: u32, number: u64) -> Vec<u8> {
    let size = 12 + (number * 37 % 1100) as usize;
    let mut payload = Vec::with_capacity(size);
    payload.extend_from_slice(&stream.to_be_bytes());
    payload.extend_from_slice(&number.to_be_bytes());
    payload.extend((12..size).map(|at| (number as usize * 7 + at) as u8));
    payload
}

/// What has come of one sender.
#[derive(Debug, Default)]
pub struct Tally {
    pub stream: u32,
    seen: HashSet<u64>,
    pub greetings: u64,
    pub duplicated: u64,
    pub altered: u64,
}

impl Tally {
    pub fn new(stream: u32) -> Self {
        Self { stream, ..Self::default() }
    }

    pub fn received(&self) -> u64 {
        self.seen.len() as u64
    }

    pub fn count(&mut self, data: &[u8]) {
        if data == GREETING {
            self.greetings += 1;
            return;
        }
        let number = data.get(4..12).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        match number {
            Some(number) if data == payload(self.stream, number) => {
                if !self.seen.insert(number) {
                    self.duplicated += 1;
                }
            }
            _ => self.altered += 1,
        }
    }
}

/// The one line of output. An echoing peer has everything relayed twice that arrives.
pub fn report(plan: &Plan, sent: u64, greetings: u64, tallies: &[&Tally]) {
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(|tally| count(tally)).sum::<u64>();
    let echoed = if plan.peer.is_some() { sum(|tally| tally.received() + tally.greetings) } else { 0 };
    println!(
        "{}",
        json!({
            "sent": sent,
            "received": sum(Tally::received),
            "duplicated": sum(|tally| tally.duplicated),
            "altered": sum(|tally| tally.altered),
            "relays": sent + greetings + echoed,
        })
    );
}
