//! What happens to sessions, as `turn-bpf events` tells it: one JSON object per line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::document::{Channel, SCHEMA};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When, in RFC 3339's form.
    pub time: String,
    /// What.
    pub event: EventKind,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// The server's address that the client sends to.
    pub server: Option<SocketAddr>,
    /// The relayed transport address, as far as it is known.
    pub relayed: Option<SocketAddr>,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// The channel number.
    pub channel: Option<Channel>,
    /// Which direction, where it is about one.
    pub direction: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Of `missed`: how many events the reader was too slow for.
    pub count: Option<u64>,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The server bound a channel, and turn-bpf heard it.
    Learned,
    /// A direction is relayed in the kernel from now on.
    Armed,
    /// A direction is the server's from now on, until it is armed again.
    Lapsed,
    /// The session is over.
    Revoked,
    /// A message was not learned from.
    Refused,
    /// An operator wants the session to go through the server.
    Paused,
    /// An operator no longer does.
    Resumed,
    /// The reader was too slow for some events, which are lost to him.
    Missed,
}

impl Event {
    /// The path at which they are streamed.
    pub const PATH: &'static str = "/events";

    /// Something that happened now.
    pub fn now(event: EventKind) -> Self {
        Self {
            schema: SCHEMA,
            time: humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string(),
            event,
            client: None,
            server: None,
            relayed: None,
            peer: None,
            channel: None,
            direction: None,
            reason: None,
            count: None,
        }
    }

    /// For people, on one line.
    pub fn line(&self) -> String {
        let mut line = format!("{} {:8}", self.time, self.event.as_str());
        let mut add = |text: String| {
            line.push(' ');
            line.push_str(&text);
        };
        if let Some(client) = self.client {
            add(format!("client {client}"));
        }
        if let Some(peer) = self.peer {
            add(format!("peer {peer}"));
        } else if let Some(server) = self.server {
            add(format!("server {server}"));
        }
        if let Some(relayed) = self.relayed {
            add(format!("relayed {relayed}"));
        }
        if let Some(channel) = self.channel {
            add(format!("channel {channel}"));
        }
        if let Some(direction) = &self.direction {
            add(direction.clone());
        }
        if let Some(reason) = &self.reason {
            add(format!("({reason})"));
        }
        if let Some(count) = self.count {
            add(format!("{count} events, since this reader is too slow"));
        }
        line
    }
}

impl EventKind {
    /// The name in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Armed => "armed",
            Self::Lapsed => "lapsed",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Missed => "missed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_the_keys_of_the_contract() {
        let event = Event {
            time: "2026-11-23T10:00:00.000Z".into(),
            client: Some("198.18.1.2:40000".parse().unwrap()),
            peer: Some("[2001:db8::1]:5000".parse().unwrap()),
            channel: Some(Channel(0x4000)),
            direction: Some("client_to_peer".into()),
            reason: Some("path_changed".into()),
            ..Event::now(EventKind::Lapsed)
        };
        let expected = concat!(
            r#"{"schema":1,"time":"2026-11-23T10:00:00.000Z","event":"lapsed","client":"198.18.1.2:40000","#,
            r#""server":null,"relayed":null,"peer":"[2001:db8::1]:5000","channel":"0x4000","#,
            r#""direction":"client_to_peer","reason":"path_changed","count":null}"#
        );
        assert_eq!(serde_json::to_string(&event).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Event>(expected).unwrap(), event);
        assert_eq!(
            event.line(),
            "2026-11-23T10:00:00.000Z lapsed   client 198.18.1.2:40000 peer [2001:db8::1]:5000 \
             channel 0x4000 client_to_peer (path_changed)"
        );
    }
}
