//! The neighbours and the reverse path filter that the server's own packets meet at an interface.

use std::fs;
use std::net::IpAddr;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{self, Message, Socket, attributes, number};

/// What the kernel's tables say of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// The gateways of its default routes that do not answer.
    pub silent_gateways: Vec<IpAddr>,
    /// The gateways of its default routes.
    pub gateways: Vec<IpAddr>,
    /// 1 where the reverse path filter is strict, 2 where it is loose, 0 where there is none. For IPv4; None where it
    /// cannot be told.
    pub rp_filter: Option<u8>,
    /// Packets that the filter has thrown away, at all interfaces.
    pub rp_filtered: u64,
}

impl Network {
    /// Asks about an interface.
    pub async fn gather(ifindex: u32, name: &str) -> Self {
        let (gateways, silent_gateways) = gateways(ifindex).await.unwrap_or_default();
        let filter = |name: &str| -> Option<u8> {
            fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?.trim().parse().ok()
        };
        // The kernel takes the larger of the two.
        let rp_filter = filter("all").zip(filter(name)).map(|(all, own)| all.max(own));
        let netstat = fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default();
        Self { silent_gateways, gateways, rp_filter, rp_filtered: counter(&netstat, "IPReversePathFilter") }
    }
}

/// Those of the default routes, and which of them the kernel has asked for in vain.
async fn gateways(ifindex: u32) -> Result<(Vec<IpAddr>, Vec<IpAddr>), netlink::Error> {
    let socket = Socket::open(NETLINK_ROUTE)?;
    let routes = socket.dump(RTM_GETROUTE, &[0; RTMSG_LEN]).await?;
    let mut gateways: Vec<_> = routes.iter().filter_map(|route| default_gateway(route, ifindex)).collect();
    gateways.sort_unstable();
    gateways.dedup();
    let neighbours = socket.dump(RTM_GETNEIGH, &[0; NDMSG_LEN]).await?;
    let failed: Vec<_> = neighbours.iter().filter_map(|neighbour| failed(neighbour, ifindex)).collect();
    let silent = gateways.iter().copied().filter(|gateway| failed.contains(gateway)).collect();
    Ok((gateways, silent))
}

fn default_gateway(message: &Message, ifindex: u32) -> Option<IpAddr> {
    let (header, rest) = message.body.split_first_chunk::<RTMSG_LEN>()?;
    let [_family, destination_bits, ..] = *header;
    let value_of = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let is_wanted = destination_bits == 0 && value_of(RTA_OIF).and_then(number) == Some(ifindex);
    address(value_of(RTA_GATEWAY)?).filter(|_| is_wanted)
}

fn failed(message: &Message, ifindex: u32) -> Option<IpAddr> {
    let (header, rest) = message.body.split_first_chunk::<NDMSG_LEN>()?;
    let [_, _, _, _, i0, i1, i2, i3, s0, s1, ..] = *header;
    let is_wanted = u32::from_ne_bytes([i0, i1, i2, i3]) == ifindex
        && u16::from_ne_bytes([s0, s1]) & (NUD_INCOMPLETE | NUD_FAILED) != 0;
    let (_, value) = attributes(rest).find(|(kind, _)| *kind == NDA_DST)?;
    address(value).filter(|_| is_wanted)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

/// Of the lines `TcpExt: <names>` and `TcpExt: <numbers>`.
fn counter(netstat: &str, wanted: &str) -> u64 {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let mut fields = names.split(' ').zip(numbers.split(' '));
    fields.find(|(name, _)| *name == wanted).and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

// include/uapi/linux/rtnetlink.h and neighbour.h
const RTM_GETROUTE: u16 = 26;
const RTM_GETNEIGH: u16 = 30;
const RTMSG_LEN: usize = 12;
const NDMSG_LEN: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const NDA_DST: u16 = 1;
const NUD_INCOMPLETE: u16 = 0x01;
const NUD_FAILED: u16 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attribute;

    #[test]
    fn the_gateway_of_a_default_route() {
        let route = |bits: u8| {
            let mut body = vec![2, bits, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0];
            body.extend(attribute(RTA_GATEWAY, &[198, 18, 1, 2]));
            body.extend(attribute(RTA_OIF, &7_u32.to_ne_bytes()));
            Message { kind: 24, body }
        };
        assert_eq!(default_gateway(&route(0), 7), Some([198, 18, 1, 2].into()));
        assert_eq!(default_gateway(&route(0), 8), None);
        assert_eq!(default_gateway(&route(24), 7), None);
    }

    #[test]
    fn a_neighbour_that_does_not_answer() {
        let neighbour = |state: u16| {
            let mut body = vec![2, 0, 0, 0, 7, 0, 0, 0];
            body.extend(state.to_ne_bytes());
            body.extend([0, 1]);
            body.extend(attribute(NDA_DST, &[198, 18, 1, 2]));
            Message { kind: 28, body }
        };
        assert_eq!(failed(&neighbour(NUD_FAILED), 7), Some([198, 18, 1, 2].into()));
        assert_eq!(failed(&neighbour(NUD_FAILED), 8), None);
        assert_eq!(failed(&neighbour(0x02), 7), None, "it is reachable");
    }

    #[test]
    fn packets_that_were_thrown_away() {
        let netstat =
            "TcpExt: SyncookiesSent IPReversePathFilter\nTcpExt: 3 17\nIpExt: InMcastPkts\nIpExt: 1\n";
        assert_eq!(counter(netstat, "IPReversePathFilter"), 17);
        assert_eq!(counter(netstat, "None"), 0);
    }
}
