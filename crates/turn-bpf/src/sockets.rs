//! UDP sockets that are closed on this host, as the kernel reports them (`sock_diag`, since 4.4).
//!
//! A server that ends an allocation closes its relay socket, and a server that dies closes all of them, with no word
//! on the wire.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::netlink::{self, Socket};

/// Reports of closed sockets, from the time of [`watch`] on.
pub struct ClosedSockets(Socket);

/// Begins to listen. An error where the kernel was built without `CONFIG_INET_UDP_DIAG`.
pub fn watch() -> Result<ClosedSockets, netlink::Error> {
    let mut socket = Socket::open(NETLINK_SOCK_DIAG)?;
    for group in [SKNLGRP_INET_UDP_DESTROY, SKNLGRP_INET6_UDP_DESTROY] {
        socket.join(group)?;
    }
    Ok(ClosedSockets(socket))
}

/// The local ports of the UDP sockets that are open on this host.
pub async fn open_ports() -> Result<HashSet<u16>, netlink::Error> {
    let socket = Socket::open(NETLINK_SOCK_DIAG)?;
    let mut ports = HashSet::new();
    for family in [AF_INET, AF_INET6] {
        // struct inet_diag_req_v2: family, protocol, extensions, padding, states, and the address of one socket.
        let mut request = [0; 56];
        request[..2].copy_from_slice(&[family, IPPROTO_UDP]);
        request[4..8].fill(0xff);
        let sockets = socket.dump(SOCK_DIAG_BY_FAMILY, &request).await?;
        ports.extend(sockets.iter().filter_map(|one| local_address(&one.body)).map(|local| local.port()));
    }
    Ok(ports)
}

impl ClosedSockets {
    /// Local addresses of the next sockets that were closed. Reports that were lost are not made up for: the leases
    /// end all the same. Cancel safe.
    pub async fn closed(&mut self) -> Result<Vec<SocketAddr>, netlink::Error> {
        match self.0.next().await {
            Ok(messages) => Ok(messages.iter().filter_map(|message| local_address(&message.body)).collect()),
            Err(netlink::Error::Receive(error)) if error.kind() == io::ErrorKind::OutOfMemory => {
                Ok(Vec::new())
            }
            Err(netlink::Error::Receive(error)) if error.raw_os_error() == Some(netlink::ENOBUFS) => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// From `struct inet_diag_msg`: family, state, timer, retransmissions, then ports and addresses in network byte order.
fn local_address(body: &[u8]) -> Option<SocketAddr> {
    let family = *body.first()?;
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let address = body.get(8..)?;
    let ip = match family {
        AF_INET => IpAddr::from(*address.first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*address.first_chunk::<16>()?).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

// include/uapi/linux/sock_diag.h
const SKNLGRP_INET_UDP_DESTROY: u32 = 2;
const SKNLGRP_INET6_UDP_DESTROY: u32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_socket_that_is_closed_is_reported() {
        let mut closed = watch().expect("reports of closed sockets");
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(address).expect("a socket");
            let address = socket.local_addr().expect("its address");
            drop(socket);
            let seen = async {
                // Other processes close sockets too.
                while !closed.closed().await.expect("a report").contains(&address) {}
            };
            tokio::time::timeout(Duration::from_secs(5), seen).await.expect("the report of this socket");
        }
    }

    #[tokio::test]
    async fn a_socket_that_is_open_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(address).expect("a socket");
            let port = socket.local_addr().expect("its address").port();
            assert!(open_ports().await.expect("open sockets").contains(&port));
            drop(socket);
            assert!(!open_ports().await.expect("open sockets").contains(&port));
        }
    }

    #[test]
    fn what_is_cut_off_is_no_address() {
        let mut body = vec![AF_INET, 7, 0, 0, 0xc0, 0x08, 0, 0, 198, 18, 2, 1];
        assert_eq!(local_address(&body), Some("198.18.2.1:49160".parse().unwrap()));
        body.pop();
        assert_eq!(local_address(&body), None);
        assert_eq!(local_address(&[]), None);
        assert_eq!(local_address(&[1; 40]), None, "another family");
    }
}
