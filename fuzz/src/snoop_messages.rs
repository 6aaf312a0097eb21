//! Control messages in any order, with any content.
//!
//! The target keeps a plain account of everything that was said, read by the message reader of `turn-testkit`. A binding is
//! announced only where the server granted it to a request that says just that, and it does not outlive what the server
//! says or grants. And what a client and a server say to each other in good order is learned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use turn_snoop::{ChannelBinding, Command, FiveTuple, Limits, Snoop};
use turn_testkit::turn_client::message::*;

use crate::bytes::Bytes;
use crate::stun_attributes::plainly_read;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// A byte of seconds.
    Seconds,
    /// Client, transaction, channel, peer: a ChannelBind request.
    ChannelBind,
    /// Client, transaction: its success.
    ChannelBound,
    /// Client, transaction, relayed, lifetime: an Allocate success.
    Allocated,
    /// Client, transaction, family: a Refresh request.
    Refresh,
    /// Client, transaction, lifetime: its success.
    Refreshed,
    /// Client, transaction, which, code: an error response.
    Refused,
    /// Client, direction, type, transaction, number of attributes, each with its type, length and value.
    Message,
    /// Client, direction, length, that many bytes.
    Raw,
    /// Which addresses are this host's.
    Local,
    /// Client, channel, peer: a request that nobody has made before, and its success.
    GoodOrder,
}

/// All of them, by number.
pub const STEPS: [Step; 11] = [
    Step::Seconds,
    Step::ChannelBind,
    Step::ChannelBound,
    Step::Allocated,
    Step::Refresh,
    Step::Refreshed,
    Step::Refused,
    Step::Message,
    Step::Raw,
    Step::Local,
    Step::GoodOrder,
];

/// Message types by number: requests, successes, errors, and what means nothing.
pub const TYPES: [(u16, Class); 14] = [
    (METHOD_CHANNEL_BIND, Class::Request),
    (METHOD_CHANNEL_BIND, Class::Success),
    (METHOD_CHANNEL_BIND, Class::Error),
    (METHOD_REFRESH, Class::Request),
    (METHOD_REFRESH, Class::Success),
    (METHOD_REFRESH, Class::Error),
    (METHOD_ALLOCATE, Class::Request),
    (METHOD_ALLOCATE, Class::Success),
    (METHOD_ALLOCATE, Class::Error),
    (METHOD_CREATE_PERMISSION, Class::Request),
    (METHOD_CREATE_PERMISSION, Class::Success),
    (METHOD_CREATE_PERMISSION, Class::Error),
    (METHOD_SEND, Class::Indication),
    (METHOD_BINDING, Class::Request),
];

/// Attribute types by number.
pub const ATTRIBUTES: [u16; 13] = [
    CHANNEL_NUMBER,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
    XOR_MAPPED_ADDRESS,
    LIFETIME,
    ERROR_CODE,
    REQUESTED_ADDRESS_FAMILY,
    MESSAGE_INTEGRITY,
    FINGERPRINT,
    MOBILITY_TICKET,
    USERNAME,
    UNKNOWN_REQUIRED,
    DATA,
];

const MOBILITY_TICKET: u16 = 0x8030;
const UNKNOWN_REQUIRED: u16 = 0x7abc;
const SERVER: &str = "192.0.2.1:3478";
const CLIENTS: [&str; 3] = ["198.51.100.1:40000", "198.51.100.2:40001", "[2001:db8:2::1]:40000"];
const RELAYED: [&str; 4] =
    ["192.0.2.1:49160", "192.0.2.1:49162", "[2001:db8:1::1]:49160", "[2001:db8:1::1]:49162"];
const PEERS: [&str; 6] = [
    "203.0.113.1:5000",
    "203.0.113.2:5000",
    "[2001:db8:3::1]:5000",
    "192.0.2.1:49162",
    "127.0.0.1:53",
    "192.0.2.1:3478",
];
/// Peers that nothing speaks against.
const PLAIN_PEERS: usize = 3;
/// A response later than that is nobody's (RFC 8489 section 6.3.1: 39.5 seconds).
const TRANSACTION: Duration = Duration::from_secs(60);
/// Nobody is believed for longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// An allocation whose Allocate was not seen lasts an hour at the most (RFC 8656 section 7.2).
const ADOPTED: Duration = Duration::from_secs(3600);
/// The grace that the server has, which looks around only so often.
const GRACE: Duration = Duration::from_secs(2);

/// Runs an input.
pub fn check(input: &[u8]) {
    let bytes = &mut Bytes::new(input);
    let mut account = Account::new();
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let step = bytes.of(&STEPS);
        account.take(step, bytes);
    }
    account.pass(LONGEST + ADOPTED);
    assert_eq!(
        (account.snoop.allocation_count(), account.snoop.binding_count()),
        (0, 0),
        "nothing is for ever"
    );
    assert_eq!(account.snoop.poll_timeout(), None, "nothing is kept for ever");
}

fn at(address: &str) -> SocketAddr {
    address.parse().expect("an address of this file")
}

fn transaction(number: u8) -> TransactionId {
    [number; 12]
}

/// What was said between a client and the server.
#[derive(Debug, Default)]
struct Conversation {
    /// ChannelBind requests.
    channel_binds: Vec<ChannelBind>,
    /// Transactions of Refresh requests that name a family.
    of_one_family: BTreeSet<TransactionId>,
    /// What the latest Allocate success granted.
    relayed: Vec<SocketAddr>,
    /// The allocation is over by then.
    ends: Duration,
}

#[derive(Debug)]
struct ChannelBind {
    when: Duration,
    transaction: TransactionId,
    /// The channel and the peer; none where it cannot be told.
    asked: Option<(u16, SocketAddr)>,
}

struct Account {
    snoop: Snoop,
    now: Duration,
    conversations: BTreeMap<SocketAddr, Conversation>,
    live: BTreeMap<(SocketAddr, u16), ChannelBinding>,
    local: Vec<IpAddr>,
    fresh: u32,
}

impl Account {
    fn new() -> Self {
        Self {
            // What a limit refuses is not learned, and limits have tests of their own.
            snoop: Snoop::new(Limits { pending_per_allocation: 1000, ..Limits::default() }),
            now: Duration::from_secs(1000),
            conversations: BTreeMap::new(),
            live: BTreeMap::new(),
            local: Vec::new(),
            fresh: 0,
        }
    }

    fn take(&mut self, step: Step, bytes: &mut Bytes<'_>) {
        match step {
            Step::Seconds => return self.pass(Duration::from_secs(bytes.byte().into())),
            Step::Local => {
                let which = bytes.byte();
                let addresses = PEERS.iter().enumerate().filter(|(place, _)| which >> place & 1 == 1);
                self.local = addresses.map(|(_, address)| at(address).ip()).collect();
                self.snoop.set_local_addresses(self.local.clone());
                return self.obey(None);
            }
            _ => {}
        }
        let client = at(bytes.of(&CLIENTS));
        if step == Step::GoodOrder {
            return self.good_order(client, bytes);
        }
        if step == Step::Raw {
            let is_request = bytes.byte() & 1 == 0;
            let length = bytes.byte();
            return self.say(client, is_request, bytes.take(length.into()));
        }
        if step == Step::Message {
            let is_request = bytes.byte() & 1 == 0;
            return self.say(client, is_request, &message(bytes));
        }
        let id = transaction(bytes.byte() & 7);
        let builder = |method, class| MessageBuilder::new(method, class).transaction(id);
        let (is_request, builder) = match step {
            Step::ChannelBind => {
                let channel = 0x4000 | u16::from(bytes.byte() & 3);
                let peer = at(bytes.of(&PEERS));
                (true, channel_bind(id, channel, peer))
            }
            Step::ChannelBound => (false, builder(METHOD_CHANNEL_BIND, Class::Success)),
            Step::Allocated => {
                let which = bytes.byte();
                let lifetime = bytes.of(&[600, 30, 3600, 0, u32::MAX]);
                let granted = RELAYED.iter().enumerate().filter(|(place, _)| which >> place & 1 == 1);
                let success = builder(METHOD_ALLOCATE, Class::Success)
                    .xor_address(XOR_MAPPED_ADDRESS, client)
                    .lifetime(lifetime);
                (
                    false,
                    granted.fold(success, |success, (_, relayed)| {
                        success.xor_address(XOR_RELAYED_ADDRESS, at(relayed))
                    }),
                )
            }
            Step::Refresh => {
                let request = builder(METHOD_REFRESH, Class::Request);
                let family = bytes.byte() % 3;
                (
                    true,
                    if family == 0 {
                        request
                    } else {
                        request.attribute(REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
                    },
                )
            }
            Step::Refreshed => {
                (false, builder(METHOD_REFRESH, Class::Success).lifetime(bytes.of(&[600, 0, 30])))
            }
            _ => {
                let method = bytes.of(&[
                    METHOD_REFRESH,
                    METHOD_CHANNEL_BIND,
                    METHOD_CREATE_PERMISSION,
                    METHOD_ALLOCATE,
                ]);
                let number = bytes.of(&[37, 0, 1, 38, 86]);
                (false, builder(method, Class::Error).attribute(ERROR_CODE, &[0, 0, 4, number, b'n', b'o']))
            }
        };
        self.say(client, is_request, &builder.build());
    }

    /// A ChannelBind that nothing speaks against is learned.
    fn good_order(&mut self, client: SocketAddr, bytes: &mut Bytes<'_>) {
        let channel = 0x5000 | u16::from(bytes.byte() & 3);
        let peer = at(PEERS[usize::from(bytes.byte()) % PLAIN_PEERS]);
        self.fresh += 1;
        let mut id = [0xff; 12];
        id[..4].copy_from_slice(&self.fresh.to_be_bytes());
        let server = at(SERVER);
        // Before either is heard: what is told of the allocation.
        self.snoop.handle_timeout(self.now);
        self.obey(None);
        let five_tuple = FiveTuple { client, server };
        let allocation = self.snoop.allocations().find(|allocation| allocation.five_tuple() == five_tuple);
        let has_all = self.conversations.get(&client).is_none_or(|one| one.of_one_family.is_empty());
        let has_family = allocation.is_none_or(|allocation| {
            // Of an older allocation both families are taken to be there until one is deleted.
            (allocation.relayed().next().is_none() && has_all)
                || allocation.relayed().any(|relayed| relayed.is_ipv4() == peer.is_ipv4())
        });
        let is_mobile = allocation.is_some_and(|allocation| allocation.is_mobile());
        let is_hidden = self.local.contains(&peer.ip()) || self.local.contains(&client.ip());
        // An address that another's Allocate has made a relayed transport address or a listener is judged otherwise.
        let is_taken = self
            .snoop
            .allocations()
            .any(|one| one.relayed().any(|relayed| relayed.port() == server.port() || relayed == peer));
        let is_known = allocation.is_some();
        self.say(client, true, &channel_bind(id, channel, peer).build());
        self.say(
            client,
            false,
            &MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Success).transaction(id).build(),
        );
        if is_known && has_family && !is_mobile && !is_hidden && !is_taken {
            let bound = self.live.get(&(client, channel)).map(|binding| binding.peer);
            assert_eq!(bound, Some(peer), "what the server granted in good order is learned");
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.snoop.handle_timeout(self.now);
        self.obey(None);
    }

    fn say(&mut self, client: SocketAddr, is_request: bool, message: &[u8]) {
        let server = at(SERVER);
        let now = self.now;
        // What is over by now ends before anything is heard.
        self.snoop.handle_timeout(now);
        self.obey(None);
        let plain = plainly_read(message);
        let conversation = self.conversations.entry(client).or_default();
        if is_request {
            if let Ok(any) = Message::parse(message).or_else(|_| header(message))
                && any.class == Class::Request
            {
                if any.method == METHOD_CHANNEL_BIND {
                    let asked = plain.as_ref().and_then(asked);
                    conversation.channel_binds.push(ChannelBind {
                        when: now,
                        transaction: any.transaction,
                        asked,
                    });
                } else if any.method == METHOD_REFRESH && any.attribute(REQUESTED_ADDRESS_FAMILY).is_some() {
                    conversation.of_one_family.insert(any.transaction);
                }
            }
            self.snoop.handle_request(now, client, server, message);
            let before = self.live.len();
            self.obey(None);
            assert!(self.live.len() <= before, "a request alone binds nothing");
            return;
        }
        let five_tuple = FiveTuple { client, server };
        let is_known = self.snoop.allocations().any(|allocation| allocation.five_tuple() == five_tuple);
        if let Some(message) = &plain {
            conversation.hear(now, message, is_known);
        }
        self.snoop.handle_response(now, server, client, message);
        self.obey(plain.as_ref().map(|message| (client, message)));
        if let Some(message) = &plain {
            self.is_heeded(client, message);
        }
    }

    /// Follows the commands. `heard` is the response that they follow from, if any.
    fn obey(&mut self, heard: Option<(SocketAddr, &Message)>) {
        let mut unbound = BTreeSet::new();
        while let Some(command) = self.snoop.poll_command() {
            match command {
                Command::Bind(binding) | Command::BindDoubtful(binding) => {
                    // One that is only to be proved anew has been justified before.
                    if !matches!(command, Command::BindDoubtful(_)) || !unbound.contains(&binding) {
                        self.is_justified(&binding, heard);
                    }
                    let before = self.live.insert((binding.five_tuple.client, binding.channel), binding);
                    assert!(before.is_none_or(|before| before == binding), "another binding has the channel");
                }
                Command::Follow(five_tuple) => panic!("{five_tuple} was found by data that nobody sent"),
                Command::Unbind(binding, _) => {
                    let before = self.live.remove(&(binding.five_tuple.client, binding.channel));
                    assert_eq!(before, Some(binding), "only what is bound is unbound");
                    unbound.insert(binding);
                }
                Command::Forget(five_tuple) => {
                    assert!(
                        self.live.keys().all(|(client, _)| *client != five_tuple.client),
                        "bound and forgotten"
                    );
                }
            }
        }
        assert_eq!(self.snoop.binding_count(), self.live.len());
        let mut ends = BTreeSet::new();
        for binding in self.live.values() {
            let conversation = &self.conversations[&binding.five_tuple.client];
            assert!(self.now < conversation.ends + GRACE, "outlives its allocation: {binding:?}");
            let is_relayed = self.conversations.values().any(|one| one.relayed.contains(&binding.peer));
            assert!(
                !self.local.contains(&binding.peer.ip()) || is_relayed,
                "bound to this host: {binding:?}"
            );
            // Servers may share a relayed transport address among clients, but then tell them apart by the peer.
            let is_first = ends.insert((binding.relayed, binding.peer));
            assert!(
                is_first || binding.relayed.is_none(),
                "two have {:?} and {}",
                binding.relayed,
                binding.peer
            );
            assert!(!binding.peer.ip().is_loopback());
        }
    }

    fn is_justified(&self, binding: &ChannelBinding, heard: Option<(SocketAddr, &Message)>) {
        let Some((client, message)) = heard else { panic!("bound without a response: {binding:?}") };
        assert_eq!((message.method, message.class), (METHOD_CHANNEL_BIND, Class::Success));
        assert_eq!(binding.five_tuple, FiveTuple { client, server: at(SERVER) });
        let conversation = &self.conversations[&client];
        let asked: Vec<_> = conversation
            .channel_binds
            .iter()
            .filter(|one| one.transaction == message.transaction && self.now - one.when < TRANSACTION)
            .map(|one| one.asked)
            .collect();
        assert!(!asked.is_empty(), "nobody asked for {binding:?}");
        let all_alike = asked.iter().all(|asked| *asked == Some((binding.channel, binding.peer)));
        assert!(all_alike, "bound {binding:?}, asked for {asked:?}");
        assert_eq!(binding.channel & 0xc000, 0x4000);
        if let Some(relayed) = binding.relayed {
            assert!(conversation.relayed.contains(&relayed), "{relayed} was not granted");
            assert_eq!(relayed.is_ipv4(), binding.peer.is_ipv4());
        }
    }

    /// What the server says against bindings has been heeded.
    fn is_heeded(&self, client: SocketAddr, message: &Message) {
        let conversation = &self.conversations[&client];
        let bound = || self.live.keys().filter(|(of, _)| *of == client).count();
        match (message.method, message.class) {
            (METHOD_REFRESH, Class::Success)
                if only(message, LIFETIME)
                    && message.lifetime() == Some(0)
                    && !conversation.of_one_family.contains(&message.transaction) =>
            {
                assert_eq!(bound(), 0, "bound after a Refresh with LIFETIME 0");
            }
            (METHOD_CHANNEL_BIND | METHOD_CREATE_PERMISSION, Class::Error)
                if only(message, ERROR_CODE) && message.error_code() == Some(437) =>
            {
                assert_eq!(bound(), 0, "bound after a 437");
            }
            _ => {}
        }
    }
}

impl Conversation {
    fn hear(&mut self, now: Duration, message: &Message, is_known: bool) {
        let lifetime = message.lifetime().map(|seconds| Duration::from_secs(seconds.into()).min(LONGEST));
        match (message.method, message.class) {
            (METHOD_ALLOCATE, Class::Success) => {
                self.relayed.extend(message.xor_addresses(XOR_RELAYED_ADDRESS));
                self.ends = self.ends.max(now + lifetime.unwrap_or_default());
            }
            (METHOD_REFRESH, Class::Success) => self.ends = self.ends.max(now + lifetime.unwrap_or_default()),
            // Of an allocation that is older than the snoop.
            (METHOD_CHANNEL_BIND, Class::Success) if !is_known => self.ends = self.ends.max(now + ADOPTED),
            _ => {}
        }
    }
}

/// The channel and the peer that a request asks for, each exactly once.
fn asked(message: &Message) -> Option<(u16, SocketAddr)> {
    if !only(message, CHANNEL_NUMBER) || !only(message, XOR_PEER_ADDRESS) {
        return None;
    }
    let [high, low, _, _] = message.attribute(CHANNEL_NUMBER)?.try_into().ok()?;
    Some((u16::from_be_bytes([high, low]), message.xor_address(XOR_PEER_ADDRESS)?))
}

fn only(message: &Message, attribute: u16) -> bool {
    message.attributes.iter().filter(|(kind, _)| *kind == attribute).count() == 1
}

/// The header alone, where the rest cannot be read.
fn header(message: &[u8]) -> Result<Message, NotStun> {
    let mut header = message.get(..20).ok_or(NotStun::Header)?.to_vec();
    header[2..4].fill(0);
    Message::parse(&header)
}

fn channel_bind(id: TransactionId, channel: u16, peer: SocketAddr) -> MessageBuilder {
    MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Request)
        .transaction(id)
        .channel_number(channel)
        .xor_address(XOR_PEER_ADDRESS, peer)
}

/// A message of which everything is chosen.
fn message(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let (method, class) = bytes.of(&TYPES);
    let mut builder = MessageBuilder::new(method, class).transaction(transaction(bytes.byte() & 7));
    for _ in 0..bytes.byte() % 8 {
        let kind = bytes.of(&ATTRIBUTES);
        let choice = bytes.byte();
        builder = match (kind, choice) {
            (XOR_PEER_ADDRESS, 0x80..) => {
                builder.xor_address(kind, at(PEERS[usize::from(choice) % PEERS.len()]))
            }
            (XOR_RELAYED_ADDRESS | XOR_MAPPED_ADDRESS, 0x80..) => {
                builder.xor_address(kind, at(RELAYED[usize::from(choice) % RELAYED.len()]))
            }
            (CHANNEL_NUMBER, 0x80..) => builder.channel_number(0x4000 | u16::from(choice & 3)),
            _ => {
                let value = bytes.take(usize::from(choice % 33));
                builder.attribute(kind, value)
            }
        };
    }
    builder.build()
}
