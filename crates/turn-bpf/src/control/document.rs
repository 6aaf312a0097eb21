//! The JSON documents of the control socket, which are also what `--json` prints.

use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of the documents. Changes only when a key is removed or gets another meaning.
pub const SCHEMA: u32 = 1;

/// What the control socket gives out.
pub trait Document: Serialize + DeserializeOwned {
    /// The path it is at.
    const PATH: &'static str;

    /// The version that it was written in.
    fn schema(&self) -> u32;
}

/// `turn-bpf status`: what is attached, and what became of the packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// In the order in which they were named.
    pub interfaces: Vec<InterfaceRow>,
    /// Allocations that the server is known to have given.
    pub allocations: u64,
    /// Channel bindings among them.
    pub bindings: u64,
    /// Directions of bindings.
    pub flows: FlowCounts,
    /// Packets since the start.
    pub packets: PacketCounts,
    /// How many packets took which way out of the kernel programs, by the reason's name. All reasons, also those that
    /// never happened.
    pub reasons: BTreeMap<String, u64>,
}

/// An interface that turn-bpf is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRow {
    /// Its name.
    pub name: String,
    /// Where the XDP program runs.
    pub mode: Mode,
    /// Its index.
    pub ifindex: u32,
}

/// Where an XDP program of turn-bpf runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// How many flows there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FlowCounts {
    /// Relayed in the kernel at this moment.
    pub armed: u64,
    /// All.
    pub total: u64,
    /// As many as there can be.
    pub max: u64,
}

/// What became of the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PacketCounts {
    /// Relayed in the kernel.
    pub kernel: u64,
    /// Of a known flow, and left to the server.
    pub spilled: u64,
    /// All others: not of a known flow.
    pub passed: u64,
}

/// `turn-bpf sessions`: the channel bindings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionsDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// One row for each channel binding.
    pub sessions: Vec<SessionRow>,
}

/// A channel binding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The client's address, as the server sees it.
    pub client: SocketAddr,
    /// The server's address that the client sends to.
    pub server: SocketAddr,
    /// The relayed transport address, as the peer sees it.
    pub relayed: SocketAddr,
    /// The peer's address.
    pub peer: SocketAddr,
    /// The channel number.
    pub channel: Channel,
    /// Who relays it at this moment.
    pub state: State,
    /// Why a direction is not relayed in the kernel.
    pub reason: Option<String>,
    /// ChannelData that becomes UDP.
    pub client_to_peer: DirectionCounts,
    /// UDP that becomes ChannelData.
    pub peer_to_client: DirectionCounts,
}

/// A channel number, written `0x4000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(pub u16);

/// Who relays a channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The kernel, both ways.
    Kernel,
    /// The server, both ways.
    Userspace,
    /// The kernel one way, the server the other.
    Mixed,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
            Self::Mixed => "mixed",
        })
    }
}

/// What one direction of a binding carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DirectionCounts {
    /// Packets relayed in the kernel.
    pub kernel_packets: u64,
    /// Their UDP payload, as the peer sends or receives it.
    pub kernel_bytes: u64,
    /// Packets left to the server.
    pub spilled_packets: u64,
}

/// Not a channel number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a channel number such as 0x4000")]
pub struct InvalidChannel(String);

impl Document for StatusDocument {
    const PATH: &'static str = "/status";

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl Document for SessionsDocument {
    const PATH: &'static str = "/sessions";

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl PacketCounts {
    /// Which part of the packets of known flows is relayed in the kernel, 0 to 1. `None` if there were none.
    pub fn kernel_share(&self) -> Option<f64> {
        let known = self.kernel.saturating_add(self.spilled);
        (known > 0).then(|| self.kernel as f64 / known as f64)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#06x}", self.0))
    }
}

impl FromStr for Channel {
    type Err = InvalidChannel;

    fn from_str(text: &str) -> Result<Self, InvalidChannel> {
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 4);
        let number = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        number.map(Self).ok_or_else(|| InvalidChannel(text.to_owned()))
    }
}

impl TryFrom<String> for Channel {
    type Error = InvalidChannel;

    fn try_from(text: String) -> Result<Self, InvalidChannel> {
        text.parse()
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> Self {
        channel.to_string()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn status_has_the_keys_of_the_contract() {
        let expected = concat!(
            r#"{"schema":1,"interfaces":[{"name":"eth0","mode":"native","ifindex":2},"#,
            r#"{"name":"eth1","mode":"generic","ifindex":3}],"allocations":3,"bindings":5,"#,
            r#""flows":{"armed":9,"total":10,"max":65536},"#,
            r#""packets":{"kernel":99400,"spilled":600,"passed":1234},"#,
            r#""reasons":{"heartbeat":600,"no_flow":1200,"not_udp":34,"too_big":0}}"#
        );
        assert_eq!(serde_json::to_string(&status()).unwrap(), expected);
        assert_eq!(serde_json::from_str::<StatusDocument>(expected).unwrap(), status());
    }

    #[test]
    fn sessions_have_the_keys_of_the_contract() {
        let expected = concat!(
            r#"{"schema":1,"sessions":[{"client":"198.18.1.2:40000","server":"198.18.1.1:3478","#,
            r#""relayed":"198.18.2.1:49160","peer":"198.18.2.2:5000","channel":"0x4000","#,
            r#""state":"kernel","reason":null,"#,
            r#""client_to_peer":{"kernel_packets":12345,"kernel_bytes":2469000,"spilled_packets":42},"#,
            r#""peer_to_client":{"kernel_packets":12001,"kernel_bytes":2400200,"spilled_packets":41}},"#,
            r#"{"client":"[2001:db8::2]:40000","server":"[2001:db8::1]:3478","#,
            r#""relayed":"198.18.2.1:49161","peer":"198.18.2.2:5001","channel":"0x4fff","#,
            r#""state":"userspace","reason":"ambiguous","#,
            r#""client_to_peer":{"kernel_packets":0,"kernel_bytes":0,"spilled_packets":7},"#,
            r#""peer_to_client":{"kernel_packets":0,"kernel_bytes":0,"spilled_packets":0}}]}"#
        );
        assert_eq!(serde_json::to_string(&sessions()).unwrap(), expected);
        assert_eq!(serde_json::from_str::<SessionsDocument>(expected).unwrap(), sessions());
    }

    #[test]
    fn keys_that_a_newer_daemon_adds_are_skipped() {
        let newer = r#"{"schema":1,"sessions":[],"version":"9.9.9"}"#;
        assert!(serde_json::from_str::<SessionsDocument>(newer).unwrap().sessions.is_empty());
    }

    #[test]
    fn channels() {
        assert_eq!("0x4fff".parse(), Ok(Channel(0x4fff)));
        assert_eq!(Channel(0x4000).to_string(), "0x4000");
        for wrong in ["", "4000", "0x400", "0x04000", "0x40 0", "0X4000"] {
            assert_eq!(wrong.parse::<Channel>(), Err(InvalidChannel(wrong.into())), "{wrong:?}");
        }
    }

    #[test]
    fn share_relayed_in_the_kernel() {
        assert_eq!(PacketCounts::default().kernel_share(), None);
        assert_eq!(PacketCounts { kernel: 3, spilled: 1, passed: 100 }.kernel_share(), Some(0.75));
    }

    pub(crate) fn status() -> StatusDocument {
        let interface = |name: &str, mode, ifindex| InterfaceRow { name: name.into(), mode, ifindex };
        let reasons = [("no_flow", 1200), ("heartbeat", 600), ("not_udp", 34), ("too_big", 0)];
        StatusDocument {
            schema: SCHEMA,
            interfaces: vec![interface("eth0", Mode::Native, 2), interface("eth1", Mode::Generic, 3)],
            allocations: 3,
            bindings: 5,
            flows: FlowCounts { armed: 9, total: 10, max: 65_536 },
            packets: PacketCounts { kernel: 99_400, spilled: 600, passed: 1_234 },
            reasons: reasons.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
        }
    }

    pub(crate) fn sessions() -> SessionsDocument {
        let address = |text: &str| text.parse().unwrap();
        let direction = |kernel_packets, kernel_bytes, spilled_packets| DirectionCounts {
            kernel_packets,
            kernel_bytes,
            spilled_packets,
        };
        let relayed = SessionRow {
            client: address("198.18.1.2:40000"),
            server: address("198.18.1.1:3478"),
            relayed: address("198.18.2.1:49160"),
            peer: address("198.18.2.2:5000"),
            channel: Channel(0x4000),
            state: State::Kernel,
            reason: None,
            client_to_peer: direction(12_345, 2_469_000, 42),
            peer_to_client: direction(12_001, 2_400_200, 41),
        };
        let left_to_server = SessionRow {
            client: address("[2001:db8::2]:40000"),
            server: address("[2001:db8::1]:3478"),
            relayed: address("198.18.2.1:49161"),
            peer: address("198.18.2.2:5001"),
            channel: Channel(0x4fff),
            state: State::Userspace,
            reason: Some("ambiguous".into()),
            client_to_peer: direction(0, 0, 7),
            peer_to_client: direction(0, 0, 0),
        };
        SessionsDocument { schema: SCHEMA, sessions: vec![relayed, left_to_server] }
    }
}
