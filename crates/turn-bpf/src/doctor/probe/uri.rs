//! TURN URIs (RFC 7065).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::Failure;

/// A TURN server that is reached by UDP: `turn:HOST`, `turn:HOST:PORT`, `turn:[2001:db8::1]:3478?transport=udp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnUri {
    host: String,
    port: u16,
}

/// Not a URI of such a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUri {
    /// It begins with something else.
    #[error("{0:?} is not a TURN URI such as turn:turn.example.org:3478")]
    Scheme(String),
    /// It names TLS, DTLS or TCP.
    #[error("{0:?} is not for plain UDP, and only plain UDP is relayed in the kernel: probe turn:HOST:PORT")]
    NotUdp(String),
    /// No host, or a port that is none.
    #[error("{0:?} does not name a host and a port, such as turn:turn.example.org:3478")]
    Place(String),
}

impl TurnUri {
    /// Its transport address; the first one, where a name has several.
    pub async fn resolve(&self) -> Result<SocketAddr, Failure> {
        let unresolved = |source| Failure::Unresolved { host: self.host.clone(), source };
        let mut found = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map_err(unresolved)?;
        found.next().ok_or_else(|| unresolved(std::io::ErrorKind::NotFound.into()))
    }
}

impl FromStr for TurnUri {
    type Err = InvalidUri;

    fn from_str(text: &str) -> Result<Self, InvalidUri> {
        if text.starts_with("turns:") {
            return Err(InvalidUri::NotUdp(text.to_owned()));
        }
        let rest = text.strip_prefix("turn:").ok_or_else(|| InvalidUri::Scheme(text.to_owned()))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, "transport=udp"));
        if query != "transport=udp" {
            return Err(InvalidUri::NotUdp(text.to_owned()));
        }
        let wrong = || InvalidUri::Place(text.to_owned());
        let (host, port) = match place.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(wrong)?;
                host.parse::<Ipv6Addr>().map_err(|_| wrong())?;
                (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")).ok_or_else(wrong)?)
            }
            None => place.split_once(':').unwrap_or((place, "")),
        };
        let port = if port.is_empty() { DEFAULT_PORT } else { port.parse().map_err(|_| wrong())? };
        let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || "/@".contains(c));
        if is_host { Ok(Self { host: host.to_owned(), port }) } else { Err(wrong()) }
    }
}

impl fmt::Display for TurnUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => write!(f, "turn:[{address}]:{}", self.port),
            _ => write!(f, "turn:{}:{}", self.host, self.port),
        }
    }
}

/// RFC 8656 section 4.3.
const DEFAULT_PORT: u16 = 3478;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_uri_means() {
        let rows = [
            ("turn:turn.example.org", "turn:turn.example.org:3478"),
            ("turn:turn.example.org:5000", "turn:turn.example.org:5000"),
            ("turn:198.18.1.1:3478?transport=udp", "turn:198.18.1.1:3478"),
            ("turn:[2001:db8::1]", "turn:[2001:db8::1]:3478"),
            ("turn:[2001:db8::1]:99", "turn:[2001:db8::1]:99"),
        ];
        for (text, expected) in rows {
            assert_eq!(text.parse::<TurnUri>().map(|uri| uri.to_string()), Ok(expected.to_owned()));
        }
    }

    #[test]
    fn what_is_no_uri_for_udp_is_refused() {
        let parse = |text: &str| text.parse::<TurnUri>().unwrap_err();
        for text in ["turns:example.org", "turn:example.org?transport=tcp"] {
            assert_eq!(parse(text), InvalidUri::NotUdp(text.into()));
        }
        for text in ["stun:example.org", "example.org:3478", ""] {
            assert_eq!(parse(text), InvalidUri::Scheme(text.into()));
        }
        for text in
            ["turn:", "turn::3478", "turn:host:70000", "turn:host:x", "turn:[::1", "turn:[a]:1", "turn:a b"]
        {
            assert_eq!(parse(text), InvalidUri::Place(text.into()));
        }
    }
}
