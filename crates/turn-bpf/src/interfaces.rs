//! The network interfaces and addresses of this network namespace, as the kernel tells them by netlink.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt, net::IpAddr};

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::netlink::{self, Socket, attribute, attributes, number, text};

/// Every interface of this thread's network namespace, in the order of their indexes.
pub async fn list() -> Result<Vec<Interface>, Error> {
    let socket = Socket::open(NETLINK_ROUTE).map_err(Error::Links)?;
    let ifinfomsg = [0; IFINFOMSG_LEN];
    let filter = attribute(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    let links = socket.dump(RTM_GETLINK, &[&ifinfomsg[..], &filter].concat()).await.map_err(Error::Links)?;
    let links = links.iter().filter(|link| link.kind == RTM_NEWLINK);
    let mut interfaces: Vec<_> = links.filter_map(|link| Interface::parse(&link.body)).collect();
    interfaces.sort_by_key(|interface| interface.ifindex);
    Ok(interfaces)
}

/// Every address of this thread's network namespace, loopback's among them, each once.
pub async fn local_addresses() -> Result<Vec<IpAddr>, Error> {
    let socket = Socket::open(NETLINK_ROUTE).map_err(Error::Addresses)?;
    let addresses = socket.dump(RTM_GETADDR, &[0; IFADDRMSG_LEN]).await.map_err(Error::Addresses)?;
    let addresses = addresses.iter().filter(|address| address.kind == RTM_NEWADDR);
    let distinct: BTreeSet<_> = addresses.filter_map(|address| parse_address(&address.body)).collect();
    Ok(distinct.into_iter().collect())
}

/// Begins to watch the interfaces and addresses of this thread's network namespace. Watch first, then read, and no
/// change is missed.
pub fn watch() -> Result<Changes, Error> {
    let mut socket = Socket::open(NETLINK_ROUTE).map_err(Error::Watch)?;
    for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
        socket.join(group).map_err(Error::Watch)?;
    }
    Ok(Changes { socket })
}

/// The interface called `name`, or an error that names those there are.
pub fn find<'a>(interfaces: &'a [Interface], name: &str) -> Result<&'a Interface, UnknownInterface> {
    interfaces.iter().find(|interface| interface.name == name).ok_or_else(|| UnknownInterface {
        name: name.to_owned(),
        known: interfaces.iter().map(|interface| interface.name.clone()).collect(),
    })
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, as `ip link` shows it.
    pub name: String,
    /// Its index in this namespace.
    pub ifindex: u32,
    /// The largest IP packet it sends, in bytes.
    pub mtu: u32,
    /// Its Ethernet address. Loopback's is all zeros.
    pub mac: Option<[u8; 6]>,
    /// `IFF_UP`: somebody has set it up, whether or not it has a carrier.
    pub is_up: bool,
    /// `IFF_LOWER_UP`: there is a carrier.
    pub has_carrier: bool,
    /// Whether its frames begin with an Ethernet header: `ARPHRD_ETHER`, or loopback.
    pub is_ethernet: bool,
    /// What kind of virtual device it is (`IFLA_INFO_KIND`), for example `veth`; `None` for hardware.
    pub kind: Option<String>,
    /// The index, in this namespace, of the interface that it is the other end of or on top of: a veth's other end, a
    /// VLAN's device. `None` also if that one is in another namespace.
    pub lower_ifindex: Option<u32>,
    /// The index of the bond, bridge or VRF that it is a port of.
    pub master_ifindex: Option<u32>,
    /// The XDP program that is attached to it.
    pub xdp: Option<AttachedXdp>,
}

/// An XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedXdp {
    /// Where it runs.
    pub mode: AttachedMode,
    /// Its id, for `bpftool prog show id`. The driver's, if there are several.
    pub program_id: u32,
}

/// Where an XDP program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachedMode {
    /// In the driver.
    Native,
    /// In the network stack, after the driver has built an skb.
    Generic,
    /// On the device itself.
    Offloaded,
    /// More than one of these.
    Several,
}

impl fmt::Display for AttachedMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
            Self::Several => "several modes",
        })
    }
}

/// Tells when interfaces or addresses change.
pub struct Changes {
    socket: Socket,
}

impl Changes {
    /// Waits for the next change. Many changes at once, or since the last call, are one. Cancel safe.
    pub async fn changed(&mut self) -> Result<(), Error> {
        self.socket.notified().await.map_err(Error::Watch)
    }
}

/// Why the interfaces are not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The links could not be read.
    #[error("cannot read the network interfaces of this network namespace")]
    Links(#[source] netlink::Error),
    /// The addresses could not be read.
    #[error("cannot read the addresses of this network namespace")]
    Addresses(#[source] netlink::Error),
    /// The notifications cannot be had.
    #[error("cannot watch the network interfaces of this network namespace")]
    Watch(#[source] netlink::Error),
}

/// There is no interface of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no network interface is called {name} here; there are: {}", known.join(", "))]
pub struct UnknownInterface {
    /// The name that was asked for.
    pub name: String,
    /// The names there are.
    pub known: Vec<String>,
}

impl Interface {
    /// Whether frames can come and go at this moment.
    pub fn is_running(&self) -> bool {
        self.is_up && self.has_carrier
    }

    /// Reads an `ifinfomsg` and its attributes. `None` if it is cut off or has no name.
    fn parse(body: &[u8]) -> Option<Self> {
        let (header, rest) = body.split_first_chunk::<IFINFOMSG_LEN>()?;
        let [_family, _pad, t0, t1, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *header;
        let device_type = u16::from_ne_bytes([t0, t1]);
        let flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        let mut interface = Self {
            name: String::new(),
            ifindex: u32::from_ne_bytes([i0, i1, i2, i3]),
            mtu: 0,
            mac: None,
            is_up: flags & IFF_UP != 0,
            has_carrier: flags & IFF_LOWER_UP != 0,
            is_ethernet: matches!(device_type, ARPHRD_ETHER | ARPHRD_LOOPBACK),
            kind: None,
            lower_ifindex: None,
            master_ifindex: None,
            xdp: None,
        };
        let mut is_lower_elsewhere = false;
        for (kind, value) in attributes(rest) {
            match kind {
                IFLA_IFNAME => interface.name = text(value),
                IFLA_MTU => interface.mtu = number(value)?,
                IFLA_ADDRESS => interface.mac = value.try_into().ok(),
                IFLA_LINK => interface.lower_ifindex = number(value),
                IFLA_MASTER => interface.master_ifindex = number(value),
                IFLA_LINK_NETNSID => is_lower_elsewhere = true,
                IFLA_LINKINFO => interface.kind = parse_kind(value),
                IFLA_XDP => interface.xdp = AttachedXdp::parse(value),
                _ => {}
            }
        }
        if is_lower_elsewhere {
            interface.lower_ifindex = None;
        }
        (!interface.name.is_empty()).then_some(interface)
    }
}

impl AttachedXdp {
    /// Reads what is nested in `IFLA_XDP`. `None` if nothing is attached.
    fn parse(nested: &[u8]) -> Option<Self> {
        let value_of = |wanted| attributes(nested).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let mode = match *value_of(IFLA_XDP_ATTACHED)?.first()? {
            XDP_ATTACHED_DRV => AttachedMode::Native,
            XDP_ATTACHED_SKB => AttachedMode::Generic,
            XDP_ATTACHED_HW => AttachedMode::Offloaded,
            XDP_ATTACHED_MULTI => AttachedMode::Several,
            _ => return None,
        };
        let ids = [IFLA_XDP_PROG_ID, IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID];
        let program_id = ids.into_iter().find_map(|kind| number(value_of(kind)?))?;
        Some(Self { mode, program_id })
    }
}

fn parse_kind(link_info: &[u8]) -> Option<String> {
    attributes(link_info).find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, value)| text(value))
}

/// Reads an `ifaddrmsg` and its attributes. On a point-to-point link `IFA_ADDRESS` is the other side's.
fn parse_address(body: &[u8]) -> Option<IpAddr> {
    let (_, rest) = body.split_first_chunk::<IFADDRMSG_LEN>()?;
    let value_of = |wanted| attributes(rest).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let value = value_of(IFA_LOCAL).or_else(|| value_of(IFA_ADDRESS))?;
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(value).map(IpAddr::from);
    v4.or(v6).ok()
}

// include/uapi/linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFINFOMSG_LEN: usize = 16;

// include/uapi/linux/if.h, if_arp.h
const IFF_UP: u32 = 1;
const IFF_LOWER_UP: u32 = 1 << 16;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

// include/uapi/linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const XDP_ATTACHED_DRV: u8 = 1;
const XDP_ATTACHED_SKB: u8 = 2;
const XDP_ATTACHED_HW: u8 = 3;
const XDP_ATTACHED_MULTI: u8 = 4;

// include/uapi/linux/if_addr.h
const IFADDRMSG_LEN: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
