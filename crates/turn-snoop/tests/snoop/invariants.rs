//! What holds whatever is sent, in whatever order.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;
use turn_snoop::{ChannelBinding, Command, FiveTuple, Limits, Snoop};

use crate::lab::*;
use crate::message::*;

const CLIENTS: [&str; 3] = [CLIENT, OTHER_CLIENT, "[2001:db8:2::1]:40000"];
const RELAYED_ADDRESSES: [&str; 4] = [RELAYED, OTHER_RELAYED, RELAYED_V6, "[2001:db8:1::1]:49162"];
const PEERS: [&str; 5] = [PEER, OTHER_PEER, PEER_V6, OTHER_RELAYED, "127.0.0.1:53"];
const CHANNELS: [u16; 4] = [0x4000, 0x4001, 0x4002, 0x3fff];
const LIMITS: Limits = Limits {
    allocations: 2,
    channels_per_allocation: 2,
    pending_per_allocation: 3,
    transactions_per_allocation: 12,
    transactions: 20,
    directions: 4,
    proofs: 2,
};

#[derive(Clone, Debug)]
enum Event {
    Wait { seconds: u64 },
    Allocated { client: &'static str, id: Id, relayed: Vec<&'static str>, lifetime: u32, is_mobile: bool },
    Request { client: &'static str, message: Request, id: Id },
    Response { client: &'static str, message: Response, id: Id },
    Local { addresses: Vec<&'static str> },
}

#[derive(Clone, Debug)]
enum Request {
    ChannelBind { channel: u16, peer: &'static str },
    Unreadable,
    Refresh { family: Option<u8> },
}

#[derive(Clone, Debug)]
enum Response {
    ChannelBound,
    Refreshed { lifetime: u32, has_ticket: bool },
    Error { kind: u16, code: u16 },
}

fn event() -> impl Strategy<Value = Event> {
    let client = || prop::sample::select(&CLIENTS[..]);
    let id = || 0_u8..6;
    let relayed = prop::sample::subsequence(&RELAYED_ADDRESSES[..], 1..=2);
    let request = prop_oneof![
        6 => (prop::sample::select(&CHANNELS[..]), prop::sample::select(&PEERS[..]))
            .prop_map(|(channel, peer)| Request::ChannelBind { channel, peer }),
        1 => Just(Request::Unreadable),
        1 => prop::option::of(1_u8..3).prop_map(|family| Request::Refresh { family }),
    ];
    let response = prop_oneof![
        8 => Just(Response::ChannelBound),
        1 => (prop::sample::select(&[0, 30, 600][..]), prop::bool::weighted(0.1))
            .prop_map(|(lifetime, has_ticket)| Response::Refreshed { lifetime, has_ticket }),
        1 => (
            prop::sample::select(&[REFRESH_ERROR, CHANNEL_BIND_ERROR, CREATE_PERMISSION_ERROR][..]),
            prop::sample::select(&[400, 401, 437, 438][..]),
        )
            .prop_map(|(kind, code)| Response::Error { kind, code }),
    ];
    prop_oneof![
        2 => (0_u64..40).prop_map(|seconds| Event::Wait { seconds }),
        2 => (client(), id(), relayed, 1_u32..700, prop::bool::weighted(0.1)).prop_map(
            |(client, id, relayed, lifetime, is_mobile)| Event::Allocated {
                client, id, relayed, lifetime, is_mobile
            }
        ),
        6 => (client(), request, id())
            .prop_map(|(client, message, id)| Event::Request { client, message, id }),
        6 => (client(), response, id())
            .prop_map(|(client, message, id)| Event::Response { client, message, id }),
        1 => prop::sample::subsequence(&PEERS[..], 0..3).prop_map(|addresses| Event::Local { addresses }),
    ]
}

fn take(event: &Event, now: &mut Duration, snoop: &mut Snoop) {
    let server = at(SERVER);
    match event {
        Event::Wait { seconds } => {
            *now += Duration::from_secs(*seconds);
            snoop.handle_timeout(*now);
        }
        Event::Allocated { client, id, relayed, lifetime, is_mobile } => {
            let message = Message::new(ALLOCATE_SUCCESS, *id).mapped(at(client)).lifetime(*lifetime);
            let message = relayed.iter().fold(message, |message, relayed| message.relayed(at(relayed)));
            let message = if *is_mobile { message.ticket() } else { message };
            snoop.handle_response(*now, server, at(client), &message.bytes());
        }
        Event::Request { client, message, id } => {
            let message = match message {
                Request::ChannelBind { channel, peer } => channel_bind(*id, *channel, peer),
                Request::Unreadable => {
                    Message::new(CHANNEL_BIND_REQUEST, *id).channel(0x4000).channel(0x4001)
                }
                Request::Refresh { family: Some(family) } => {
                    Message::new(REFRESH_REQUEST, *id).family(*family)
                }
                Request::Refresh { family: None } => Message::new(REFRESH_REQUEST, *id),
            };
            snoop.handle_request(*now, at(client), server, &message.bytes());
        }
        Event::Response { client, message, id } => {
            let message = match message {
                Response::ChannelBound => channel_bound(*id),
                Response::Refreshed { lifetime, has_ticket } => {
                    let message = Message::new(REFRESH_SUCCESS, *id).lifetime(*lifetime);
                    if *has_ticket { message.ticket() } else { message }
                }
                Response::Error { kind, code } => Message::new(*kind, *id).error(*code),
            };
            snoop.handle_response(*now, server, at(client), &message.bytes());
        }
        Event::Local { addresses } => {
            snoop.set_local_addresses(addresses.iter().map(|address| at(address).ip()));
        }
    }
}

/// What the caller knows from the commands alone.
#[derive(Default)]
struct Follower {
    by_channel: HashMap<(FiveTuple, u16), ChannelBinding>,
    by_peer: HashMap<(FiveTuple, SocketAddr), ChannelBinding>,
}

impl Follower {
    fn follow(&mut self, command: Command) {
        match command {
            Command::Bind(binding) | Command::BindDoubtful(binding) => {
                assert_eq!(binding.channel & 0xc000, 0x4000);
                assert!(!binding.peer.ip().is_loopback());
                assert!(binding.relayed.is_none_or(|relayed| relayed.is_ipv4() == binding.peer.is_ipv4()));
                let by_channel = self.by_channel.insert((binding.five_tuple, binding.channel), binding);
                let by_peer = self.by_peer.insert((binding.five_tuple, binding.peer), binding);
                assert_eq!(by_channel, by_peer, "neither its channel nor its peer is another binding's");
                assert!(by_channel.is_none_or(|before| before == binding));
            }
            Command::Follow(five_tuple) => {
                assert!(five_tuple.client.port() != 0);
            }
            Command::Unbind(binding, _) => {
                let by_channel = self.by_channel.remove(&(binding.five_tuple, binding.channel));
                let by_peer = self.by_peer.remove(&(binding.five_tuple, binding.peer));
                assert_eq!((by_channel, by_peer), (Some(binding), Some(binding)), "it was bound");
            }
            Command::Forget(five_tuple) => {
                assert!(self.by_channel.keys().all(|&(of, _)| of != five_tuple), "all is unbound by then");
            }
        }
    }
}

proptest! {
    #[test]
    fn commands_tell_the_whole_state(events in prop::collection::vec(event(), 0..200)) {
        let mut snoop = Snoop::new(LIMITS);
        let mut now = Duration::ZERO;
        let mut follower = Follower::default();
        for event in events {
            take(&event, &mut now, &mut snoop);
            while let Some(command) = snoop.poll_command() {
                follower.follow(command);
            }

            let live: HashSet<_> =
                snoop.allocations().flat_map(|allocation| allocation.bindings().copied()).collect();
            prop_assert_eq!(&live, &follower.by_channel.values().copied().collect::<HashSet<_>>());
            prop_assert_eq!(snoop.binding_count(), live.len());
            prop_assert_eq!(snoop.allocation_count(), snoop.allocations().count());
            prop_assert!(snoop.allocation_count() <= LIMITS.allocations);
            prop_assert!(snoop.poll_timeout().is_none_or(|at| at > now), "what was due is done");

            let mut ends = HashSet::new();
            for allocation in snoop.allocations() {
                prop_assert!(allocation.relayed().count() <= 2);
                prop_assert!(allocation.bindings().count() <= LIMITS.channels_per_allocation);
                prop_assert!(!allocation.is_mobile() || allocation.bindings().count() == 0);
                for binding in allocation.bindings() {
                    prop_assert!(binding.relayed.is_none_or(|relayed| ends.insert((relayed, binding.peer))), "one owner each");
                    prop_assert!(binding.relayed.is_none_or(|relayed| allocation.relayed().any(|address| address == relayed)));
                }
            }
        }

        snoop.handle_timeout(now + Duration::from_secs(4000));
        prop_assert_eq!((snoop.allocation_count(), snoop.binding_count()), (0, 0));
        prop_assert_eq!(snoop.poll_timeout(), None, "nothing is kept for ever");
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        messages in prop::collection::vec((any::<bool>(), message_like()), 0..50),
    ) {
        let mut lab = Lab::allocated();
        for (is_request, bytes) in messages {
            if is_request {
                lab.request_bytes(CLIENT, &bytes);
            } else {
                lab.snoop.handle_response(lab.now, at(SERVER), at(CLIENT), &bytes);
            }
            while lab.snoop.poll_command().is_some() {}
        }
    }
}

/// Bytes that mostly get as far as the attributes.
fn message_like() -> impl Strategy<Value = Vec<u8>> {
    let kinds = [0x0009, 0x0109, 0x0119, 0x0004, 0x0104, 0x0114, 0x0103, 0x0113, 0x0118, 0x0003];
    let attributes =
        [0x0006_u16, 0x0008, 0x0009, 0x000c, 0x000d, 0x0012, 0x0016, 0x0017, 0x0020, 0x8028, 0x8030];
    let attribute = (prop::sample::select(attributes.to_vec()), prop::collection::vec(any::<u8>(), 0..24));
    let message = (prop::sample::select(kinds.to_vec()), any::<u8>(), prop::collection::vec(attribute, 0..6));
    let message = message.prop_map(|(kind, id, attributes)| {
        let message = Message::new(kind, id);
        attributes.iter().fold(message, |message, (kind, value)| message.attribute(*kind, value)).bytes()
    });
    let flawed =
        (message.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, index, flaw)| {
            let index = index.index(bytes.len());
            bytes[index] = flaw;
            bytes
        });
    prop_oneof![4 => message, 2 => flawed, 1 => prop::collection::vec(any::<u8>(), 0..100)]
}
