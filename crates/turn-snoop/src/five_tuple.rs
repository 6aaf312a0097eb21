use std::fmt;
use std::net::SocketAddr;

/// The client's and the server's transport address; the transport is UDP (RFC 8656 section 2).
///
/// The client's is the address that the server sees, in front of whatever NAT the client is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FiveTuple {
    /// Where requests come from and responses go to.
    pub client: SocketAddr,
    /// Where requests go to and responses come from.
    pub server: SocketAddr,
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.client, self.server)
    }
}
