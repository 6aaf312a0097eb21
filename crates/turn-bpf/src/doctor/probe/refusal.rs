//! Why a call did not work, in words.

use std::io;
use std::net::SocketAddr;

/// Why a call did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The server's name has no address.
    #[error("cannot find an address of {host}")]
    Unresolved {
        /// The name.
        host: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No socket, or no way there.
    #[error("cannot send to {server} from here")]
    NoWay {
        /// The server.
        server: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The server's host says that nobody listens (ICMP).
    #[error("nobody listens at UDP {0}: its host says so. Is the server running, and on this port?")]
    NobodyListens(SocketAddr),
    /// No answer at all.
    #[error(
        "no answer from {server} to {request}: is the server running, and does every firewall on the way let UDP through?"
    )]
    NoAnswer {
        /// The server.
        server: SocketAddr,
        /// What was asked.
        request: &'static str,
    },
    /// An error response.
    #[error("the server refuses {request} with {code}{}: {}", Quoted(reason), in_words(*code))]
    Refused {
        /// What was asked.
        request: &'static str,
        /// ERROR-CODE.
        code: u16,
        /// The server's own words.
        reason: String,
    },
    /// The server broke the protocol.
    #[error("the server's answer to {request} cannot be used: {what}")]
    Unusable {
        /// What was asked.
        request: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Media does not flow.
    #[error("{}", nothing_came_back(*sent, *arrived, *peer))]
    NothingCameBack {
        /// Packets sent by the client.
        sent: u32,
        /// Packets that the peer got.
        arrived: u32,
        /// The peer, as the server sees it.
        peer: SocketAddr,
    },
}

impl Failure {
    /// The code of an error response.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What an error means to somebody who tries whether a call works (RFC 8489 section 14.8, RFC 8656 section 19).
fn in_words(code: u16) -> &'static str {
    match code {
        300 => "it sends its clients to another server; probe that one",
        400 => "it takes the request for malformed",
        401 => "the user name or the password is wrong, or has expired",
        403 => {
            "it forbids this. If it is the permission or the channel, then the peer's address, which is this machine's, is not \
             allowed (coturn: denied-peer-ip, allow-loopback-peers)"
        }
        420 => "it does not know an attribute of the request",
        437 => "it has no such allocation any more",
        438 => {
            "it finds each nonce stale, though it gave it itself; are its clock and its other servers' right?"
        }
        440 => "it has no relayed address of this family (IPv4, IPv6)",
        441 => "the allocation belongs to other credentials",
        442 => "it does not relay UDP",
        443 => "the peer's address is of another family than the relayed one",
        446 => "there is a connection to that peer already",
        486 => "this user has as many allocations as are allowed (coturn: user-quota, total-quota)",
        500 => "something went wrong inside it; its log may say what",
        508 => "it has no port or no capacity left",
        _ => "no more is known",
    }
}

fn nothing_came_back(sent: u32, arrived: u32, peer: SocketAddr) -> String {
    match arrived {
        0 => format!(
            "the server granted everything, but none of {sent} packets reached the peer {peer}: does a firewall take what comes \
             from the server's relay ports, or does a NAT on the way here give each destination another port?"
        ),
        _ => format!(
            "{arrived} of {sent} packets reached the peer {peer}, but none came back: does a firewall take what goes to the \
             server's relay ports?"
        ),
    }
}

struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_words() {
        let message = |code, reason: &str| {
            Failure::Refused { request: "Allocate", code, reason: reason.into() }.to_string()
        };
        let rows = [
            (401, "password is wrong"),
            (403, "denied-peer-ip"),
            (437, "no such allocation"),
            (486, "user-quota"),
            (508, "no capacity left"),
            (699, "no more is known"),
        ];
        for (code, words) in rows {
            let message = message(code, "Because");
            assert!(message.contains(words) && message.contains("(Because)"), "{message}");
            assert!(message.contains(&code.to_string()), "{message}");
        }
        assert!(!message(401, "").contains('('), "no empty quotation");
    }
}
