//! What an interface's driver can do with XDP, as the kernel tells it by the `netdev` generic netlink family.

use std::fmt;

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::generic_netlink::{family_id, request, value_of};
use crate::netlink::{self, Message, Socket, attribute, number};

/// Asks what the driver of the interface with this index can do. `None` from a kernel that does not tell, which is any
/// before 6.3.
pub async fn query(ifindex: u32) -> Result<Option<XdpFeatures>, Error> {
    let socket = Socket::open(NETLINK_GENERIC).map_err(|source| Error { ifindex, source })?;
    read(&socket, ifindex).await.map_err(|source| Error { ifindex, source })
}

/// What a driver can do with XDP: `enum netdev_xdp_act` in include/uapi/linux/netdev.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// `NETDEV_XDP_ACT_BASIC`: native programs that abort, drop, pass or transmit.
    pub const BASIC: Self = Self(1);
    /// `NETDEV_XDP_ACT_REDIRECT`: native programs that redirect.
    pub const REDIRECT: Self = Self(2);
    /// `NETDEV_XDP_ACT_NDO_XMIT`: it transmits frames that were redirected to it. Many drivers do so only while they have
    /// a program themselves.
    pub const NDO_XMIT: Self = Self(4);
    /// `NETDEV_XDP_ACT_XSK_ZEROCOPY`.
    pub const XSK_ZEROCOPY: Self = Self(8);
    /// `NETDEV_XDP_ACT_HW_OFFLOAD`.
    pub const HW_OFFLOAD: Self = Self(16);
    /// `NETDEV_XDP_ACT_RX_SG`: frames of more than one buffer, for programs that know of them.
    pub const RX_SG: Self = Self(32);
    /// `NETDEV_XDP_ACT_NDO_XMIT_SG`: the same for frames that were redirected to it.
    pub const NDO_XMIT_SG: Self = Self(64);

    /// Whether these are all among them.
    pub fn contains(self, features: Self) -> bool {
        self.0 & features.0 == features.0
    }

    /// Whether the driver runs programs itself.
    pub fn has_native(self) -> bool {
        self.contains(Self::BASIC)
    }

    /// Whether it transmits, at this moment, frames that were redirected to it.
    pub fn can_transmit_redirected(self) -> bool {
        self.contains(Self::NDO_XMIT)
    }

    /// Whether it does so for frames of more than one buffer.
    pub fn can_transmit_redirected_parts(self) -> bool {
        self.can_transmit_redirected() && self.contains(Self::NDO_XMIT_SG)
    }
}

impl fmt::Display for XdpFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["basic", "redirect", "ndo-xmit", "xsk-zerocopy", "hw-offload", "rx-sg", "ndo-xmit-sg"];
        let set: Vec<_> = names
            .into_iter()
            .enumerate()
            .filter(|(bit, _)| self.0 >> bit & 1 == 1)
            .map(|(_, name)| name)
            .collect();
        f.pad(&if set.is_empty() { "none".to_owned() } else { set.join(" ") })
    }
}

/// The driver's features could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the XDP features of the interface with index {ifindex}")]
pub struct Error {
    /// The interface.
    pub ifindex: u32,
    /// Why.
    #[source]
    pub source: netlink::Error,
}

async fn read(socket: &Socket, ifindex: u32) -> Result<Option<XdpFeatures>, netlink::Error> {
    let Some(netdev) = family_id(socket, "netdev").await? else { return Ok(None) };
    let wanted = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    let answer = socket.ask(netdev, &request(NETDEV_CMD_DEV_GET, NETDEV_FAMILY_VERSION, &wanted)).await?;
    Ok(answer.iter().find_map(parse_features))
}

/// The features are a u64. Kernels send small ones as u32 where the family's specification says `uint`.
fn parse_features(message: &Message) -> Option<XdpFeatures> {
    let value = value_of(message, NETDEV_A_DEV_XDP_FEATURES)?;
    let wide = value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes));
    wide.or_else(|| number(value).map(u64::from)).map(XdpFeatures)
}

// include/uapi/linux/netdev.h
const NETDEV_FAMILY_VERSION: u8 = 1;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::KernelRelease;

    #[test]
    fn features_are_read_from_an_answer() {
        let features = attribute(NETDEV_A_DEV_XDP_FEATURES, &0x23_u64.to_ne_bytes());
        let ifindex = attribute(NETDEV_A_DEV_IFINDEX, &4_u32.to_ne_bytes());
        let body = request(NETDEV_CMD_DEV_GET, NETDEV_FAMILY_VERSION, &[ifindex.clone(), features].concat());
        let read = parse_features(&Message { kind: 30, body }).unwrap();
        assert!(read.has_native());
        assert!(!read.can_transmit_redirected());
        assert!(read.contains(XdpFeatures::RX_SG));
        assert_eq!(read.to_string(), "basic redirect rx-sg");

        let body = request(NETDEV_CMD_DEV_GET, NETDEV_FAMILY_VERSION, &ifindex);
        assert_eq!(parse_features(&Message { kind: 30, body }), None);
        assert_eq!(XdpFeatures::default().to_string(), "none");
    }

    #[tokio::test]
    async fn loopback_has_no_native_xdp() {
        match query(1).await.unwrap() {
            Some(features) => assert!(!features.has_native(), "{features}"),
            None => assert!(KernelRelease::running() < Some(FIRST_WITH_NETDEV), "this kernel should tell"),
        }
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_an_error() {
        match query(i32::MAX as u32).await {
            Err(error) => {
                assert!(error.to_string().contains("2147483647"), "{error}");
                assert!(matches!(error.source, netlink::Error::Refused(_)), "{error:?}");
            }
            Ok(features) => {
                assert_eq!(features, None);
                assert!(KernelRelease::running() < Some(FIRST_WITH_NETDEV), "this kernel should tell");
            }
        }
    }

    const FIRST_WITH_NETDEV: KernelRelease = KernelRelease { major: 6, minor: 3 };
}
