//! The JSON documents of the control socket, which are also what `--json` prints.

use std::{collections::BTreeMap, fmt, net::SocketAddr, str::FromStr};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::selector::{Ends, Selector};

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
    /// turn-bpf's version.
    #[serde(default)]
    pub version: String,
    /// When it was started, in RFC 3339's form.
    #[serde(default)]
    pub started: String,
    /// Bytes of application data of known flows since the start.
    #[serde(default)]
    pub bytes: ByteCounts,
    /// Channel bindings by who relays them at this moment.
    #[serde(default)]
    pub sessions: SessionCounts,
    /// What an operator has paused.
    #[serde(default)]
    pub paused: Vec<Selector>,
    /// Most bytes per second of one direction of a session that are relayed in the kernel.
    #[serde(default)]
    pub max_rate: Option<u64>,
    /// Control messages that turn-bpf has read so far. The reasons `control` and `egress_control` count those that the kernel
    /// side copied, which is ahead of this for a moment.
    #[serde(default)]
    pub control_messages: ControlMessageCounts,
}

/// Control messages that were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ControlMessageCounts {
    /// Of clients.
    pub requests: u64,
    /// Of servers.
    pub responses: u64,
}

/// Application data of known flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByteCounts {
    /// Relayed in the kernel.
    pub kernel: u64,
    /// Left to the server.
    pub spilled: u64,
}

/// Channel bindings by who relays them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionCounts {
    /// The kernel, both ways.
    pub kernel: u64,
    /// The kernel one way, the server the other.
    pub mixed: u64,
    /// The server, both ways.
    pub userspace: u64,
    /// Those that the kernel does not relay both ways, by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// An interface that turn-bpf is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceRow {
    /// Its name.
    pub name: String,
    /// Where the ingress program runs.
    pub mode: Mode,
    /// Its index.
    pub ifindex: u32,
    /// Why not in native mode, unless another was asked for.
    #[serde(default)]
    pub mode_reason: Option<String>,
}

/// Where an ingress program of turn-bpf runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the network stack, at TC.
    Tc,
    /// In the network stack, as generic XDP.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Native => "native",
            Self::Tc => "tc",
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
    /// The reason in words.
    #[serde(default)]
    pub explanation: Option<String>,
    /// When the channel was bound, in RFC 3339's form.
    #[serde(default)]
    pub started: String,
    /// How long ago that was.
    #[serde(default)]
    pub age_seconds: u64,
    /// Who bound it, as far as it was said in clear.
    #[serde(default)]
    pub username: Option<String>,
    /// The realm of that name.
    #[serde(default)]
    pub realm: Option<String>,
}

/// A channel number, written `0x4000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(pub u16);

/// Who relays a channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// Their UDP payload, without ChannelData headers.
    #[serde(default)]
    pub spilled_bytes: u64,
}

/// What came of `evict`, `pause` or `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// How many sessions were evicted, paused or resumed.
    pub sessions: u64,
    /// What is paused now.
    pub paused: Vec<Selector>,
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

impl Document for ActionDocument {
    /// None of its own: it is the answer to what is posted.
    const PATH: &'static str = "";

    fn schema(&self) -> u32 {
        self.schema
    }
}

impl SessionRow {
    /// What the session is found by.
    pub fn ends(&self) -> Ends {
        let relayed = (!self.relayed.ip().is_unspecified()).then_some(self.relayed);
        Ends { client: self.client, peer: self.peer, relayed, channel: self.channel }
    }
}

impl DirectionCounts {
    /// All packets.
    pub fn packets(&self) -> u64 {
        self.kernel_packets.saturating_add(self.spilled_packets)
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.kernel_bytes.saturating_add(self.spilled_bytes)
    }
}

impl ByteCounts {
    /// Which part of the bytes of known flows is relayed in the kernel, 0 to 1. `None` if there were none.
    pub fn kernel_share(&self) -> Option<f64> {
        let known = self.kernel.saturating_add(self.spilled);
        (known > 0).then(|| self.kernel as f64 / known as f64)
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
        let is_number =
            |digits: &&str| digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let digits = text.strip_prefix("0x").filter(is_number);
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
    use crate::session_reason::SessionReason;

    #[test]
    fn status_has_the_keys_of_the_contract() {
        let expected = concat!(
            r#"{"schema":1,"interfaces":[{"name":"eth0","mode":"native","ifindex":2,"mode_reason":null},"#,
            r#"{"name":"eth1","mode":"tc","ifindex":3,"mode_reason":"its driver has no native XDP"}],"#,
            r#""allocations":3,"bindings":5,"#,
            r#""flows":{"armed":9,"total":10,"max":65536},"#,
            r#""packets":{"kernel":99400,"spilled":600,"passed":1234},"#,
            r#""reasons":{"heartbeat":600,"no_flow":1200,"not_udp":34,"too_big":0},"#,
            r#""version":"0.1.0","started":"2026-11-23T09:00:00Z","bytes":{"kernel":19880000,"spilled":120000},"#,
            r#""sessions":{"kernel":4,"mixed":0,"userspace":1,"reasons":{"no_traffic":1}},"#,
            r#""paused":[{"client":"198.18.9.0/24"}],"max_rate":650000,"#,
            r#""control_messages":{"requests":14,"responses":15}}"#
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
            r#""client_to_peer":{"kernel_packets":12345,"kernel_bytes":2469000,"spilled_packets":42,"spilled_bytes":8400},"#,
            r#""peer_to_client":{"kernel_packets":12001,"kernel_bytes":2400200,"spilled_packets":41,"spilled_bytes":8200},"#,
            r#""explanation":null,"started":"2026-11-23T10:00:00Z","age_seconds":61,"username":"alice","realm":"example.org"},"#,
            r#"{"client":"[2001:db8::2]:40000","server":"[2001:db8::1]:3478","#,
            r#""relayed":"198.18.2.1:49161","peer":"198.18.2.2:5001","channel":"0x4fff","#,
            r#""state":"userspace","reason":"ambiguous","#,
            r#""client_to_peer":{"kernel_packets":0,"kernel_bytes":0,"spilled_packets":7,"spilled_bytes":1400},"#,
            r#""peer_to_client":{"kernel_packets":0,"kernel_bytes":0,"spilled_packets":0,"spilled_bytes":0},"#,
            r#""explanation":"Another session has the same packets on the wire, so that neither can be told from the other.","#,
            r#""started":"2026-11-23T10:00:00Z","age_seconds":61,"username":null,"realm":null}]}"#
        );
        assert_eq!(serde_json::to_string(&sessions()).unwrap(), expected);
        assert_eq!(serde_json::from_str::<SessionsDocument>(expected).unwrap(), sessions());
    }

    #[test]
    fn an_older_daemons_documents_are_read() {
        let older = concat!(
            r#"{"schema":1,"interfaces":[],"allocations":3,"bindings":5,"flows":{"armed":9,"total":10,"max":65536},"#,
            r#""packets":{"kernel":1,"spilled":2,"passed":3},"reasons":{}}"#
        );
        let document: StatusDocument = serde_json::from_str(older).unwrap();
        assert_eq!((document.bytes, document.max_rate), (ByteCounts::default(), None));
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
        for wrong in ["", "4000", "0x400", "0x04000", "0x40 0", "0x+400", "0X4000"] {
            assert_eq!(wrong.parse::<Channel>(), Err(InvalidChannel(wrong.into())), "{wrong:?}");
        }
    }

    #[test]
    fn share_relayed_in_the_kernel() {
        assert_eq!(PacketCounts::default().kernel_share(), None);
        assert_eq!(PacketCounts { kernel: 3, spilled: 1, passed: 100 }.kernel_share(), Some(0.75));
    }

    pub(crate) fn status() -> StatusDocument {
        let interface = |name: &str, mode, ifindex, reason: Option<&str>| InterfaceRow {
            name: name.into(),
            mode,
            ifindex,
            mode_reason: reason.map(str::to_owned),
        };
        let interfaces = vec![
            interface("eth0", Mode::Native, 2, None),
            interface("eth1", Mode::Tc, 3, Some("its driver has no native XDP")),
        ];
        let reasons = [("no_flow", 1200), ("heartbeat", 600), ("not_udp", 34), ("too_big", 0)];
        StatusDocument {
            schema: SCHEMA,
            interfaces,
            allocations: 3,
            bindings: 5,
            flows: FlowCounts { armed: 9, total: 10, max: 65_536 },
            packets: PacketCounts { kernel: 99_400, spilled: 600, passed: 1_234 },
            reasons: reasons.into_iter().map(|(reason, count)| (reason.to_owned(), count)).collect(),
            version: "0.1.0".into(),
            started: "2026-11-23T09:00:00Z".into(),
            bytes: ByteCounts { kernel: 19_880_000, spilled: 120_000 },
            sessions: SessionCounts {
                kernel: 4,
                mixed: 0,
                userspace: 1,
                reasons: [("no_traffic".to_owned(), 1)].into(),
            },
            paused: vec![Selector::from_query("client=198.18.9.0/24").unwrap()],
            max_rate: Some(650_000),
            control_messages: ControlMessageCounts { requests: 14, responses: 15 },
        }
    }

    pub(crate) fn sessions() -> SessionsDocument {
        let address = |text: &str| text.parse().unwrap();
        let direction = |kernel_packets, kernel_bytes, spilled_packets| DirectionCounts {
            kernel_packets,
            kernel_bytes,
            spilled_packets,
            spilled_bytes: spilled_packets * 200,
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
            explanation: None,
            started: "2026-11-23T10:00:00Z".into(),
            age_seconds: 61,
            username: Some("alice".into()),
            realm: Some("example.org".into()),
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
            explanation: Some(SessionReason::Ambiguous.explanation().into()),
            started: "2026-11-23T10:00:00Z".into(),
            age_seconds: 61,
            username: None,
            realm: None,
        };
        SessionsDocument { schema: SCHEMA, sessions: vec![relayed, left_to_server] }
    }
}
