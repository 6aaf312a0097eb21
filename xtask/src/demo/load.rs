//! How much traffic the demo makes.

use std::time::Duration;

use serde::Serialize;

/// What `turnutils_uclient` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Load {
    /// TURN clients at the same time.
    pub clients: u32,
    /// Messages that each of them sends; every one is to come back.
    pub messages_per_client: u32,
    /// Payload bytes.
    pub message_size: u32,
    /// Milliseconds between two messages of a client.
    pub interval_ms: u32,
}

impl Load {
    /// At this load coturn is busy for several seconds, and loses nothing yet on two cores that it shares with clients and peer.
    pub const DEFAULT: Self =
        Self { clients: 10, messages_per_client: 20_000, message_size: 200, interval_ms: 1 };
    /// A quarter, since captures take time and room.
    pub const FOR_CAPTURES: Self = Self { messages_per_client: 5_000, interval_ms: 4, ..Self::DEFAULT };

    /// Messages of all clients.
    pub fn messages(&self) -> u64 {
        u64::from(self.clients) * u64::from(self.messages_per_client)
    }

    /// How long it should take, as far as the messages go.
    pub fn duration(&self) -> Duration {
        Duration::from_millis(u64::from(self.messages_per_client) * u64::from(self.interval_ms))
    }
}
