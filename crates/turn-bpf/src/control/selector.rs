//! Which sessions are meant: by client, peer, relayed transport address and channel.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::document::Channel;

/// Sessions for which all of this holds; with nothing said, all sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Client, peer or relayed transport address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<AddressPattern>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<AddressPattern>,
    /// The peer's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<AddressPattern>,
    /// The relayed transport address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relayed: Option<AddressPattern>,
    /// The channel number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
}

/// What a session is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client's address.
    pub client: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The relayed transport address, where it is known.
    pub relayed: Option<SocketAddr>,
    /// The channel number.
    pub channel: Channel,
}

/// Addresses: `192.0.2.1`, `192.0.2.0/24`, `2001:db8::/32`, or one transport address such as `192.0.2.1:40000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AddressPattern {
    /// Any port at an address of this network.
    Network(IpNet),
    /// This transport address.
    Transport(SocketAddr),
}

/// Not addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither an address (192.0.2.1, 2001:db8::1), nor a network (192.0.2.0/24), nor a transport address \
     (192.0.2.1:40000, [2001:db8::1]:40000)"
)]
pub struct InvalidPattern(String);

/// A query that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// A key that means nothing.
    #[error("{0:?} is no key; there are address, client, peer, relayed and channel")]
    Key(String),
    /// A key that is there twice.
    #[error("{0} is there twice")]
    Twice(String),
    /// A value that is no address.
    #[error(transparent)]
    Pattern(#[from] InvalidPattern),
    /// A value that is no channel.
    #[error(transparent)]
    Channel(#[from] super::document::InvalidChannel),
}

impl Selector {
    /// True where all that is said holds of a session.
    pub fn matches(&self, ends: &Ends) -> bool {
        let fits = |pattern: &Option<AddressPattern>, address: Option<SocketAddr>| {
            pattern.is_none_or(|pattern| address.is_some_and(|address| pattern.contains(address)))
        };
        let any = self.address.is_none_or(|pattern| {
            [Some(ends.client), Some(ends.peer), ends.relayed]
                .into_iter()
                .flatten()
                .any(|address| pattern.contains(address))
        });
        any && fits(&self.client, Some(ends.client))
            && fits(&self.peer, Some(ends.peer))
            && fits(&self.relayed, ends.relayed)
            && self.channel.is_none_or(|channel| channel == ends.channel)
    }

    /// True where this means all sessions.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// True where every session that the other means is meant by this, too, as far as that can be told.
    pub fn covers(&self, other: &Self) -> bool {
        let covers = |own: &Option<AddressPattern>, others: &[&Option<AddressPattern>]| {
            own.is_none_or(|own| others.iter().any(|other| other.is_some_and(|other| own.covers(other))))
        };
        covers(&self.address, &[&other.address, &other.client, &other.peer, &other.relayed])
            && covers(&self.client, &[&other.client])
            && covers(&self.peer, &[&other.peer])
            && covers(&self.relayed, &[&other.relayed])
            && self.channel.is_none_or(|channel| other.channel == Some(channel))
    }

    /// Reads what follows the `?` of a URI.
    pub fn from_query(query: &str) -> Result<Self, InvalidQuery> {
        let mut selector = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            if key == "channel" {
                if selector.channel.replace(value.parse()?).is_some() {
                    return Err(InvalidQuery::Twice(key.into_owned()));
                }
                continue;
            }
            let place = match &*key {
                "address" => &mut selector.address,
                "client" => &mut selector.client,
                "peer" => &mut selector.peer,
                "relayed" => &mut selector.relayed,
                _ => return Err(InvalidQuery::Key(key.into_owned())),
            };
            if place.replace(value.parse()?).is_some() {
                return Err(InvalidQuery::Twice(key.into_owned()));
            }
        }
        Ok(selector)
    }

    /// The same as a query, empty for all sessions.
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (key, value) in self.parts() {
            query.append_pair(key, &value);
        }
        query.finish()
    }

    fn parts(&self) -> impl Iterator<Item = (&'static str, String)> {
        let addresses = [
            ("address", self.address),
            ("client", self.client),
            ("peer", self.peer),
            ("relayed", self.relayed),
        ];
        let channel = self.channel.map(|channel| ("channel", channel.to_string()));
        addresses.into_iter().filter_map(|(key, value)| Some((key, value?.to_string()))).chain(channel)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.parts().map(|(key, value)| format!("{key} {value}")).collect();
        f.pad(&if parts.is_empty() { "all sessions".to_owned() } else { parts.join(", ") })
    }
}

impl AddressPattern {
    /// True where it means this transport address.
    pub fn contains(self, address: SocketAddr) -> bool {
        match self {
            Self::Network(network) => network.contains(&address.ip().to_canonical()),
            Self::Transport(transport) => transport == address,
        }
    }

    fn covers(self, other: Self) -> bool {
        match (self, other) {
            (Self::Network(network), Self::Network(other)) => network.contains(&other),
            (_, Self::Transport(other)) => self.contains(other),
            (Self::Transport(_), Self::Network(_)) => false,
        }
    }
}

impl FromStr for AddressPattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let network = || text.parse::<IpNet>().map(|network| network.trunc()).ok();
        let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
        let transport = || text.parse::<SocketAddr>().ok().map(Self::Transport);
        address()
            .or_else(network)
            .map(Self::Network)
            .or_else(transport)
            .ok_or_else(|| InvalidPattern(text.to_owned()))
    }
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => {
                network.addr().fmt(f)
            }
            Self::Network(network) => network.fmt(f),
            Self::Transport(transport) => transport.fmt(f),
        }
    }
}

impl TryFrom<String> for AddressPattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<AddressPattern> for String {
    fn from(pattern: AddressPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> Ends {
        Ends {
            client: "198.18.1.2:40000".parse().unwrap(),
            peer: "[2001:db8::5]:5000".parse().unwrap(),
            relayed: Some("[2001:db8::1]:49160".parse().unwrap()),
            channel: Channel(0x4001),
        }
    }

    #[test]
    fn what_a_query_means() {
        let rows = [
            ("", true),
            ("client=198.18.1.2", true),
            ("client=198.18.1.0/24", true),
            ("client=198.18.1.77/24", true),
            ("client=198.18.1.2:40000", true),
            ("client=198.18.1.2:40001", false),
            ("client=198.18.2.0/24", false),
            ("client=::/0", false),
            ("client=0.0.0.0/0", true),
            ("peer=198.18.1.2", false),
            ("peer=2001:db8::/32", true),
            ("peer=[2001:db8::5]:5000", true),
            ("relayed=2001:db8::1", true),
            ("address=2001:db8::1", true),
            ("address=2001:db8::5", true),
            ("address=198.18.1.2", true),
            ("address=198.18.1.3", false),
            ("client=198.18.1.2&peer=2001%3Adb8%3A%3A%2F32", true),
            ("client=198.18.1.2&peer=2001:db8:1::/48", false),
            ("channel=0x4001", true),
            ("channel=0x4002&client=198.18.1.2", false),
        ];
        for (query, expected) in rows {
            let selector = Selector::from_query(query).unwrap();
            assert_eq!(selector.matches(&ends()), expected, "{query}");
            assert_eq!(Selector::from_query(&selector.to_query()), Ok(selector.clone()), "{query}");
            assert_eq!(selector.is_all(), query.is_empty());
        }
        let unknown = Ends { relayed: None, ..ends() };
        assert!(!Selector::from_query("relayed=::/0").unwrap().matches(&unknown));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for query in [
            "user=alice",
            "client=here",
            "client=198.18.1.2/33",
            "client=1&client=2",
            "channel=16385",
            "client",
        ] {
            assert!(Selector::from_query(query).is_err(), "{query}");
        }
        let twice = Selector::from_query("peer=198.18.0.1&peer=198.18.0.2");
        assert_eq!(twice, Err(InvalidQuery::Twice("peer".into())));
    }

    #[test]
    fn which_covers_which() {
        let rows = [
            ("", "client=198.18.1.2", true),
            ("client=198.18.1.2", "", false),
            ("client=198.18.0.0/15", "client=198.18.1.2", true),
            ("client=198.18.0.0/15", "client=198.18.1.2:4000&channel=0x4000", true),
            ("client=198.18.1.2", "client=198.18.0.0/15", false),
            ("client=198.18.1.2:4000", "client=198.18.1.2", false),
            ("address=198.18.1.2", "peer=198.18.1.2", true),
            ("peer=198.18.1.2", "address=198.18.1.2", false),
            ("client=198.18.1.2&channel=0x4000", "client=198.18.1.2", false),
        ];
        for (one, other, expected) in rows {
            let [wide, narrow] = [one, other].map(|query| Selector::from_query(query).unwrap());
            assert_eq!(wide.covers(&narrow), expected, "{one} over {other}");
            assert!(wide.covers(&wide));
        }
    }

    #[test]
    fn people_read_it_as_words() {
        let selector = Selector::from_query("client=198.18.1.0/24&channel=0x4001").unwrap();
        assert_eq!(selector.to_string(), "client 198.18.1.0/24, channel 0x4001");
        assert_eq!(Selector::default().to_string(), "all sessions");
        let json = r#"{"client":"198.18.1.0/24","channel":"0x4001"}"#;
        assert_eq!(serde_json::to_string(&selector).unwrap(), json);
    }
}
