//! Who is where in the model's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where the server listens.
pub const LISTENERS: [SocketAddr; 2] = [v4(1, 1, 3478), v6(1, 1, 3478)];
/// Where the relayed transport addresses are.
pub const RELAY: IpAddr = v4(2, 1, 0).ip();
/// The same, IPv6.
pub const RELAY_V6: IpAddr = v6(2, 1, 0).ip();
/// What the server says instead where it is behind 1:1 NAT.
pub const PUBLIC: IpAddr = v4(9, 9, 0).ip();
/// The clients.
pub const CLIENTS: [SocketAddr; 3] = [v4(1, 2, 40000), v4(1, 3, 40001), v6(1, 2, 40000)];
/// The peers.
pub const PEERS: [SocketAddr; 3] = [v4(2, 2, 5000), v4(2, 3, 5000), v6(2, 2, 5000)];

/// The listener of a client's family.
pub fn listener_of(client: SocketAddr) -> SocketAddr {
    LISTENERS[usize::from(client.is_ipv6())]
}

const fn v4(net: u8, host: u8, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 18, net, host)), port)
}

const fn v6(net: u16, host: u16, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host)), port)
}
