//! The parties of a test packet by role, in the address ranges kept for tests and documentation.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The TURN client.
pub const CLIENT: SocketAddr = v4(1, 2, 40000);
/// The TURN server's transport address on the client's side.
pub const SERVER: SocketAddr = v4(1, 1, 3478);
/// The relayed transport address.
pub const RELAYED: SocketAddr = v4(2, 1, 49160);
/// The peer.
pub const PEER: SocketAddr = v4(2, 2, 5000);

/// The TURN client, IPv6.
pub const CLIENT_V6: SocketAddr = v6(1, 2, 40000);
/// The TURN server's transport address on the client's side, IPv6.
pub const SERVER_V6: SocketAddr = v6(1, 1, 3478);
/// The relayed transport address, IPv6.
pub const RELAYED_V6: SocketAddr = v6(2, 1, 49160);
/// The peer, IPv6.
pub const PEER_V6: SocketAddr = v6(2, 2, 5000);

/// The client, or the router in front of it.
pub const CLIENT_MAC: Mac = [0x02, 0, 0, 0, 0, 0x0c];
/// The server's interface on the client's side.
pub const SERVER_MAC: Mac = [0x02, 0, 0, 0, 0, 0x05];
/// The server's interface on the peer's side.
pub const RELAYED_MAC: Mac = [0x02, 0, 0, 0, 0, 0x0e];
/// The peer, or the router in front of it.
pub const PEER_MAC: Mac = [0x02, 0, 0, 0, 0, 0x09];

const fn v4(net: u8, host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, net, host)), port)
}

const fn v6(net: u16, host: u16, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host)), port)
}
