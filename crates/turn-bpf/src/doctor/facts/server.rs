//! Which process is the TURN server: whoever listens on its port, in this network namespace or in another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use tokio::net::UdpSocket;

use super::super::probe::ask_binding;
use crate::host::Process;
use crate::netlink::{self, Socket};

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Server {
    /// The port.
    pub port: u16,
    /// Whether the kernel tells of UDP sockets, and thus when one is closed (`CONFIG_INET_UDP_DIAG`).
    pub sockets_are_told: bool,
    /// Who listens by UDP in this network namespace.
    pub listener: Option<Listener>,
    /// Whether anybody listens on the port by TCP in this network namespace.
    pub has_tcp: bool,
    /// Who listens by UDP in another network namespace.
    pub elsewhere: Option<Process>,
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub addresses: Vec<SocketAddr>,
    /// The process, if it may be told.
    pub process: Option<Process>,
    /// What it calls itself when it is asked (STUN Binding).
    pub software: Option<String>,
    /// UDP sockets of the same process at other ports, which relay or wait for that.
    pub other_sockets: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    local: SocketAddr,
    inode: u32,
}

impl Server {
    /// Looks for who listens on this port.
    pub async fn gather(port: u16) -> Self {
        let told = sockets(IPPROTO_UDP).await;
        let sockets_are_told = told.is_ok();
        let udp = told.unwrap_or_default();
        let at_port: Vec<_> = udp.iter().filter(|socket| socket.local.port() == port).copied().collect();
        let tcp = sockets(IPPROTO_TCP).await.unwrap_or_default();
        Self {
            port,
            sockets_are_told,
            listener: if at_port.is_empty() { None } else { Some(Listener::of(&at_port, &udp).await) },
            has_tcp: tcp.iter().any(|socket| socket.local.port() == port),
            elsewhere: in_other_namespaces(port),
        }
    }
}

impl Listener {
    async fn of(at_port: &[Found], all: &[Found]) -> Self {
        let addresses: BTreeSet<_> = at_port.iter().map(|socket| socket.local).collect();
        let process = at_port.iter().find_map(|socket| owner(socket.inode));
        let own = process.as_ref().map(|process| inodes(process.pid)).unwrap_or_default();
        let listens = |socket: &&Found| addresses.contains(&socket.local);
        let other_sockets =
            all.iter().filter(|socket| own.contains(&socket.inode) && !listens(socket)).count();
        let software = match addresses.first() {
            Some(address) => software(*address).await,
            None => None,
        };
        Self { addresses: addresses.into_iter().collect(), process, software, other_sockets }
    }
}

/// What the server at an address of this host calls itself.
async fn software(address: SocketAddr) -> Option<String> {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let socket = UdpSocket::bind((ip, 0)).await.ok()?;
    ask_binding(&socket, SocketAddr::new(ip, address.port()), PATIENCE).await?.software
}

/// All sockets of a protocol in this network namespace that are bound and connected to nobody.
async fn sockets(protocol: u8) -> Result<Vec<Found>, netlink::Error> {
    let socket = Socket::open(NETLINK_SOCK_DIAG)?;
    let mut found = Vec::new();
    for family in [AF_INET, AF_INET6] {
        // `struct inet_diag_req_v2`: family, protocol, extensions, padding, states, and a socket's identity, which is
        // not looked at.
        let mut request = vec![family, protocol, 0, 0];
        request.extend((1_u32 << TCP_CLOSE | 1 << TCP_LISTEN).to_ne_bytes());
        request.resize(request.len() + SOCKET_ID_LEN, 0);
        let messages = socket.dump(SOCK_DIAG_BY_FAMILY, &request).await?;
        found.extend(messages.iter().filter_map(|message| parse(&message.body)));
    }
    Ok(found)
}

/// From `struct inet_diag_msg`.
fn parse(body: &[u8]) -> Option<Found> {
    let port = u16::from_be_bytes(*body.get(4..)?.first_chunk()?);
    let address = body.get(8..)?;
    let ip = match *body.first()? {
        AF_INET => IpAddr::from(*address.first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*address.first_chunk::<16>()?),
        _ => return None,
    };
    let inode = u32::from_ne_bytes(*body.get(4 + SOCKET_ID_LEN + 16..)?.first_chunk()?);
    Some(Found { local: SocketAddr::new(ip, port), inode })
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn owner(inode: u32) -> Option<Process> {
    pids().find(|pid| inodes(*pid).contains(&inode)).map(process)
}

fn process(pid: u32) -> Process {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Process { pid, command: command.trim().to_owned() }
}

/// Of the sockets that a process holds, as far as we may look.
fn inodes(pid: u32) -> BTreeSet<u32> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().filter_map(Result::ok);
    let inode = |path: &Path| {
        let target = fs::read_link(path).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    descriptors.filter_map(|descriptor| inode(&descriptor.path())).collect()
}

/// Who listens on the port by UDP in a network namespace other than ours, as far as we may look.
fn in_other_namespaces(port: u16) -> Option<Process> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    let own = namespace("thread-self").or_else(|| namespace("self"))?;
    let mut others: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for pid in pids() {
        if let Some(other) = namespace(&pid.to_string()).filter(|other| *other != own) {
            others.entry(other).or_default().push(pid);
        }
    }
    others.into_values().find_map(|pids| {
        let first = pids.first()?;
        let tables = ["udp", "udp6"].map(|name| fs::read_to_string(format!("/proc/{first}/net/{name}")));
        let found: BTreeSet<_> = tables.iter().flatten().flat_map(|table| bound_to(table, port)).collect();
        if found.is_empty() {
            return None;
        }
        pids.into_iter().find(|pid| !inodes(*pid).is_disjoint(&found)).map(process)
    })
}

/// The inodes of the sockets at a port, of /proc/net/udp.
fn bound_to(table: &str, port: u16) -> Vec<u32> {
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let at_port = rows.filter(|row| {
        let local = row.get(1).and_then(|local| local.rsplit_once(':'));
        local.and_then(|(_, found)| u16::from_str_radix(found, 16).ok()) == Some(port)
    });
    at_port.filter_map(|row| row.get(9)?.parse().ok()).collect()
}

const PATIENCE: Duration = Duration::from_millis(500);

// include/uapi/linux/sock_diag.h, inet_diag.h, include/net/tcp_states.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCKET_ID_LEN: usize = 48;
/// Also the state of a UDP socket that is connected to nobody.
const TCP_CLOSE: u32 = 7;
const TCP_LISTEN: u32 = 10;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_of_this_process_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let listener = Server::gather(port).await.listener.expect("the listener");
        assert_eq!(listener.addresses, [socket.local_addr().unwrap()]);
        assert_eq!(listener.process.map(|process| process.pid), Some(std::process::id()));
        assert_eq!(listener.software, None, "it does not answer");
        drop(socket);
        let server = Server::gather(port).await;
        assert_eq!((server.listener, server.sockets_are_told), (None, true));
    }

    #[test]
    fn a_table_of_another_namespace() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n  \
                     29: 010112C6:0D96 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n";
        assert_eq!(bound_to(table, 3478), [4711]);
        assert_eq!(bound_to(table, 3479), [0; 0]);
    }
}
