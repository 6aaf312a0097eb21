//! How the kernel would send a packet right now: its routing and neighbour tables, asked over netlink.
//!
//! `bpf_fib_lookup` would do the same in the kernel, but answers "forwarding disabled" on every host that is not a
//! router, which a TURN server need not be.

use std::net::{IpAddr, SocketAddr};

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{self, Socket, attribute, attributes, number};

/// The next hop of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Interface that it leaves by.
    pub ifindex: u32,
    /// The neighbour that it goes to.
    pub mac: [u8; 6],
    /// Most bytes of IP packet on this route, where the route has a limit of its own.
    pub mtu: Option<u32>,
}

/// Where a packet between these addresses would go; none where there is no route, where it would stay on this host, or
/// where the neighbour is not known at this moment.
pub async fn next_hop(source: IpAddr, destination: IpAddr) -> Result<Option<NextHop>, netlink::Error> {
    let socket = Socket::open(NETLINK_ROUTE)?;
    let Some(route) = ask(&socket, RTM_GETROUTE, &route_request(source, destination)).await? else {
        return Ok(None);
    };
    let Some(route) = Route::read(&route, destination) else { return Ok(None) };
    let Some(neighbour) =
        ask(&socket, RTM_GETNEIGH, &neighbour_request(route.ifindex, route.gateway)).await?
    else {
        return Ok(None);
    };
    Ok(lladdr(&neighbour).map(|mac| NextHop { ifindex: route.ifindex, mac, mtu: route.mtu }))
}

/// What a path takes, as the kernel would send a datagram right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathMtu {
    /// Most bytes of IP packet: by the route's own MTU, or what routers have said of it (`ip route get`). None where there is no limit
    /// but the interface's.
    pub of_route: Option<u32>,
}

/// What the path from one transport address to another takes; none where it does not lead by this interface.
pub async fn path_mtu(
    socket: &Socket,
    source: SocketAddr,
    destination: SocketAddr,
    ifindex: u32,
) -> Result<Option<PathMtu>, netlink::Error> {
    let mut request = route_request(source.ip(), destination.ip());
    request.extend(attribute(RTA_IP_PROTO, &[IPPROTO_UDP]));
    request.extend(attribute(RTA_SPORT, &source.port().to_be_bytes()));
    request.extend(attribute(RTA_DPORT, &destination.port().to_be_bytes()));
    let Some(answer) = ask(socket, RTM_GETROUTE, &request).await? else { return Ok(None) };
    let route = Route::read(&answer, destination.ip()).filter(|route| route.ifindex == ifindex);
    Ok(route.map(|route| PathMtu { of_route: route.mtu }))
}

/// The first message of the answer; none where the kernel says that there is no such thing.
async fn ask(socket: &Socket, kind: u16, body: &[u8]) -> Result<Option<Vec<u8>>, netlink::Error> {
    match socket.ask(kind, body).await {
        Ok(messages) => Ok(messages.into_iter().next().map(|message| message.body)),
        Err(netlink::Error::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn route_request(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    // `struct rtmsg`: family, lengths of destination and source, then what an answer says.
    let mut body = vec![family(destination), bits(destination), bits(source), 0, 0, 0, 0, 0, 0, 0, 0, 0];
    body.extend(attribute(RTA_DST, &octets(destination)));
    body.extend(attribute(RTA_SRC, &octets(source)));
    body
}

fn neighbour_request(ifindex: u32, address: IpAddr) -> Vec<u8> {
    // `struct ndmsg`: family, padding, ifindex, state, flags, type.
    let mut body = vec![family(address), 0, 0, 0];
    body.extend(ifindex.to_ne_bytes());
    body.extend([0; 4]);
    body.extend(attribute(NDA_DST, &octets(address)));
    body
}

#[derive(Debug, PartialEq, Eq)]
struct Route {
    ifindex: u32,
    gateway: IpAddr,
    mtu: Option<u32>,
}

impl Route {
    /// None where the packet would not be sent to another host.
    fn read(body: &[u8], destination: IpAddr) -> Option<Self> {
        const HEADER: usize = 12;
        if *body.get(7)? != RTN_UNICAST {
            return None;
        }
        let mut route = Self { ifindex: 0, gateway: destination, mtu: None };
        for (kind, value) in attributes(body.get(HEADER..)?) {
            match kind {
                RTA_OIF => route.ifindex = number(value)?,
                RTA_GATEWAY => route.gateway = address(value)?,
                // `struct rtvia`: a gateway of another family than the destination.
                RTA_VIA => route.gateway = address(value.get(2..)?)?,
                RTA_METRICS => {
                    let mtu = attributes(value).find(|(kind, _)| *kind == RTAX_MTU);
                    route.mtu = mtu.and_then(|(_, value)| number(value)).filter(|mtu| *mtu > 0);
                }
                _ => {}
            }
        }
        (route.ifindex != 0).then_some(route)
    }
}

fn lladdr(body: &[u8]) -> Option<[u8; 6]> {
    const HEADER: usize = 12;
    let state = u16::from_ne_bytes(*body.get(8..)?.first_chunk()?);
    if state & NUD_VALID == 0 {
        return None;
    }
    let (_, mac) = attributes(body.get(HEADER..)?).find(|(kind, _)| *kind == NDA_LLADDR)?;
    mac.try_into().ok()
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(IpAddr::from(*value.first_chunk::<4>()?)),
        16 => Some(IpAddr::from(*value.first_chunk::<16>()?)),
        _ => None,
    }
}

// include/uapi/linux/rtnetlink.h and neighbour.h
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTN_UNICAST: u8 = 1;
const RTA_DST: u16 = 1;
const RTA_SRC: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_METRICS: u16 = 8;
const RTA_VIA: u16 = 18;
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTA_DPORT: u16 = 29;
const RTAX_MTU: u16 = 2;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
/// Permanent, without ARP, reachable, probed, stale or delayed: the kernel would use it (`NUD_VALID`).
const NUD_VALID: u16 = 0x80 | 0x40 | 0x02 | 0x10 | 0x04 | 0x08;
const IPPROTO_UDP: u8 = 17;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8) -> Vec<u8> {
        vec![AF_INET, 32, 0, 0, 254, 0, 0, kind, 0, 0, 0, 0]
    }

    #[test]
    fn a_route_is_read_with_its_gateway_and_mtu() {
        let peer: IpAddr = "198.18.5.1".parse().unwrap();
        let metrics = attribute(RTAX_MTU, &1400_u32.to_ne_bytes());
        let body = [
            header(RTN_UNICAST),
            attribute(RTA_OIF, &3_u32.to_ne_bytes()),
            attribute(RTA_GATEWAY, &[198, 18, 2, 254]),
            attribute(RTA_METRICS, &metrics),
        ]
        .concat();
        let gateway = "198.18.2.254".parse().unwrap();
        assert_eq!(Route::read(&body, peer), Some(Route { ifindex: 3, gateway, mtu: Some(1400) }));
        let direct = [header(RTN_UNICAST), attribute(RTA_OIF, &3_u32.to_ne_bytes())].concat();
        assert_eq!(Route::read(&direct, peer), Some(Route { ifindex: 3, gateway: peer, mtu: None }));
    }

    #[test]
    fn a_packet_that_stays_here_or_is_refused_has_no_next_hop() {
        let peer: IpAddr = "198.18.5.1".parse().unwrap();
        for kind in [2, 3, 5, 6, 7, 8] {
            let body = [header(kind), attribute(RTA_OIF, &3_u32.to_ne_bytes())].concat();
            assert_eq!(Route::read(&body, peer), None, "route of kind {kind}");
        }
        assert_eq!(Route::read(&header(RTN_UNICAST), peer), None, "no interface");
    }

    #[test]
    fn only_a_neighbour_that_the_kernel_would_use_counts() {
        let body = |state: u16| {
            let mut body = vec![AF_INET, 0, 0, 0, 3, 0, 0, 0];
            body.extend(state.to_ne_bytes());
            body.extend([0, 1]);
            [body, attribute(NDA_LLADDR, &[2, 0, 0, 0, 0, 9])].concat()
        };
        for state in [0x02, 0x04, 0x08, 0x10, 0x40, 0x80] {
            assert_eq!(lladdr(&body(state)), Some([2, 0, 0, 0, 0, 9]), "state {state:#x}");
        }
        for state in [0, 0x01, 0x20] {
            assert_eq!(lladdr(&body(state)), None, "state {state:#x}");
        }
    }
}
