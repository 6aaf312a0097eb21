//! What an interface's driver is set to, as `ethtool` would tell: by the kernel's generic netlink family of that name.

use std::collections::BTreeSet;
use std::process::Command;

use netlink_sys::protocols::NETLINK_GENERIC;

use crate::generic_netlink::{family_id, request, value_of};
use crate::netlink::{self, Message, Socket, attribute, attributes, number, text};

/// A device's settings. None of what the kernel or the driver does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// Names of the offloads that are on, as the kernel calls them: `rx-lro`.
    pub offloads: Option<BTreeSet<String>>,
    /// Its queues.
    pub channels: Option<Channels>,
    /// Counters of packets that an EC2 instance was not allowed, by name. Those above zero only.
    pub exceeded: Option<Vec<(String, u64)>>,
}

/// How many queues there are, and how many there could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channels {
    /// Pairs of queues.
    pub combined: u32,
    /// As many of these as there can be.
    pub most_combined: u32,
}

impl Device {
    /// Asks about the interface with this index.
    pub async fn gather(ifindex: u32, name: &str, driver: Option<&str>) -> Self {
        // What cannot be asked cannot be told.
        let (offloads, channels) = read(ifindex).await.unwrap_or_default();
        let exceeded = driver.filter(|driver| *driver == "ena").and_then(|_| exceeded_allowances(name));
        Self { offloads, channels, exceeded }
    }

    /// Whether it makes UDP checksums itself, instead of leaving them to hardware.
    pub fn makes_checksums(&self) -> Option<bool> {
        let offloads = self.offloads.as_ref()?;
        Some(!offloads.iter().any(|offload| offload.starts_with("tx-checksum-ip")))
    }

    /// Whether an offload is on.
    pub fn has(&self, offload: &str) -> bool {
        self.offloads.as_ref().is_some_and(|offloads| offloads.contains(offload))
    }
}

type Told = (Option<BTreeSet<String>>, Option<Channels>);

async fn read(ifindex: u32) -> Result<Told, netlink::Error> {
    let socket = Socket::open(NETLINK_GENERIC)?;
    let Some(ethtool) = family_id(&socket, "ethtool").await? else { return Ok(Told::default()) };
    let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &ifindex.to_ne_bytes());
    let header = attribute(HEADER | NLA_F_NESTED, &device);
    // A driver that does not have it refuses.
    let ask = async |command| {
        let answer = socket.ask(ethtool, &request(command, ETHTOOL_GENL_VERSION, &header)).await.ok()?;
        answer.into_iter().next()
    };
    let features = ask(ETHTOOL_MSG_FEATURES_GET).await;
    let channels = ask(ETHTOOL_MSG_CHANNELS_GET).await;
    Ok((features.as_ref().and_then(active), channels.as_ref().map(Channels::parse)))
}

/// The names of the bits that are set in `ETHTOOL_A_FEATURES_ACTIVE`.
fn active(message: &Message) -> Option<BTreeSet<String>> {
    let bitset = value_of(message, ETHTOOL_A_FEATURES_ACTIVE)?;
    let find = |bytes, wanted| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let bits = attributes(find(bitset, ETHTOOL_A_BITSET_BITS)?);
    Some(bits.filter_map(|(_, bit)| find(bit, ETHTOOL_A_BITSET_BIT_NAME)).map(text).collect())
}

impl Channels {
    fn parse(message: &Message) -> Self {
        let count = |kind| value_of(message, kind).and_then(number).unwrap_or(0);
        Self {
            combined: count(ETHTOOL_A_CHANNELS_COMBINED_COUNT),
            most_combined: count(ETHTOOL_A_CHANNELS_COMBINED_MAX),
        }
    }
}

/// By `ethtool -S`, which asks the driver in a way that netlink has not.
fn exceeded_allowances(name: &str) -> Option<Vec<(String, u64)>> {
    let output = Command::new("ethtool").args(["-S", name]).output().ok()?;
    output.status.success().then(|| parse_allowances(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_allowances(statistics: &str) -> Vec<(String, u64)> {
    let counters = statistics.lines().filter_map(|line| line.trim().split_once(": "));
    let counters = counters.filter(|(name, _)| name.ends_with("_allowance_exceeded"));
    counters
        .filter_map(|(name, value)| Some((name.to_owned(), value.trim().parse().ok()?)))
        .filter(|(_, value)| *value > 0)
        .collect()
}

// include/uapi/linux/ethtool_netlink.h
const ETHTOOL_GENL_VERSION: u8 = 1;
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const HEADER: u16 = 1;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_CHANNELS_COMBINED_MAX: u16 = 5;
const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;
// include/uapi/linux/netlink.h
const NLA_F_NESTED: u16 = 1 << 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn loopbacks_offloads_are_told() {
        let loopback = Device::gather(1, "lo", None).await;
        assert!(loopback.has("tx-checksum-ip-generic"), "{loopback:?}");
        assert!(!loopback.has("rx-lro"));
        assert_eq!(Device::gather(i32::MAX as u32, "none-such", None).await, Device::default());
    }

    #[test]
    fn channels_are_read_from_an_answer() {
        let attributes = [
            attribute(ETHTOOL_A_CHANNELS_COMBINED_MAX, &8_u32.to_ne_bytes()),
            attribute(ETHTOOL_A_CHANNELS_COMBINED_COUNT, &6_u32.to_ne_bytes()),
        ];
        let message = Message { kind: 30, body: request(18, 1, &attributes.concat()) };
        assert_eq!(Channels::parse(&message), Channels { combined: 6, most_combined: 8 });
    }

    #[test]
    fn allowances_of_an_instance() {
        let statistics = "NIC statistics:\n     tx_timeout: 0\n     bw_in_allowance_exceeded: 0\n     \
                          pps_allowance_exceeded: 1734\n     conntrack_allowance_available: 136812\n";
        assert_eq!(parse_allowances(statistics), [("pps_allowance_exceeded".to_owned(), 1734)]);
    }
}
