//! A client with a right password that writes its requests as oddly as it can: whatever turn-bpf makes of them, the server decides.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use turn_testkit::cases::random::noise;
use turn_testkit::datagram::receive;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    CHANNEL_NUMBER, Class, DATA, LIFETIME, METHOD_CHANNEL_BIND, MessageBuilder, REQUESTED_ADDRESS_FAMILY,
    TransactionId, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};

use crate::options;

const SEED: u64 = 0x8656;
const CLIENTS: usize = 80;
const REQUESTS_OF_A_CLIENT: usize = 8;
const PEERS: usize = 5;
const CHANNELS: [u16; 6] = [0x4000, 0x4001, 0x4002, 0x4fff, 0x5000, 0x7fff];

/// Which channel is bound to which peer.
type Bindings = BTreeMap<u16, SocketAddr>;

/// Random numbers, the same in every run.
struct Dice(Box<dyn Iterator<Item = u8>>);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        let bytes = [(); 4].map(|()| self.0.next().expect("endless"));
        u32::from_be_bytes(bytes) as usize % limit
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A request, and what is known of it by its making.
struct Request {
    bytes: Vec<u8>,
    transaction: TransactionId,
    /// Nothing about it is odd.
    is_plain: bool,
    /// Where receivers must not look for attributes, there are some.
    has_hidden_attributes: bool,
}

impl Request {
    fn new(dice: &mut Dice, client: &TurnClient, peers: &[SocketAddr], earlier: &[TransactionId]) -> Self {
        let transaction = match dice.once_in(8) && !earlier.is_empty() {
            true => dice.of(earlier),
            false => [(); 12].map(|()| dice.below(256) as u8),
        };
        let is_plain = dice.once_in(4);
        let mut builder = client.builder(METHOD_CHANNEL_BIND).transaction(transaction);
        let mut has_hidden_attributes = false;
        if is_plain {
            let channel = dice.of(&CHANNELS[..3]);
            builder = builder.channel_number(channel).xor_address(XOR_PEER_ADDRESS, dice.of(peers));
            return Self { bytes: builder.build(), transaction, is_plain, has_hidden_attributes };
        }
        for (attribute, value) in odd_attributes(dice, transaction, peers) {
            builder = builder.attribute(attribute, &value);
        }
        if dice.once_in(4) {
            builder = builder.padding(dice.of(&[0x20, 0xff]));
        }
        if dice.once_in(8) {
            has_hidden_attributes = true;
            for (attribute, value) in odd_attributes(dice, transaction, peers) {
                builder = builder.after_integrity(attribute, &value);
            }
        }
        if dice.once_in(10) {
            builder = builder.broken_integrity();
        }
        let mut bytes = match dice.once_in(4) {
            true => builder.fingerprint().build(),
            false => builder.build(),
        };
        spoil(dice, &mut bytes);
        Self { bytes, transaction, is_plain, has_hidden_attributes }
    }
}

/// Channel and peer, mostly once, mostly right, in any order, and whatever else comes to mind.
fn odd_attributes(dice: &mut Dice, transaction: TransactionId, peers: &[SocketAddr]) -> Vec<(u16, Vec<u8>)> {
    let mut attributes = Vec::new();
    for _ in 0..dice.of(&[1, 1, 1, 1, 1, 1, 1, 1, 2, 0]) {
        let channel = dice.of(&CHANNELS);
        let number = match dice.once_in(8) {
            true => dice.of(&[0, 0x3fff, 0x8000, 0xffff]),
            false => channel,
        };
        let [high, low] = number.to_be_bytes();
        let value = [high, low, dice.of(&[0, 0, 0xff]), dice.of(&[0, 0, 7]), 0, 0, 0, 0];
        let length = if dice.once_in(10) { dice.of(&[2, 3, 5, 8]) } else { 4 };
        attributes.push((CHANNEL_NUMBER, value[..length].to_vec()));
    }
    for _ in 0..dice.of(&[1, 1, 1, 1, 1, 1, 1, 2, 3, 0]) {
        attributes.push((XOR_PEER_ADDRESS, odd_address(dice, transaction, peers)));
    }
    if dice.once_in(4) {
        let address = odd_address(dice, transaction, peers);
        let family = dice.of(&[1, 2]);
        let other = dice.of(&[
            (LIFETIME, vec![0; 4]),
            (REQUESTED_ADDRESS_FAMILY, vec![family, 0, 0, 0]),
            (XOR_RELAYED_ADDRESS, address.clone()),
            (DATA, [&[0, 0x12, 0, 8][..], &address].concat()),
            // Unknown, and to be understood or not; MOBILITY-TICKET; ALTERNATE-SERVER.
            (0x7abc, vec![1, 2, 3]),
            (0xffff, vec![1, 2, 3]),
            (0x8030, vec![]),
            (0x8023, address),
        ]);
        attributes.push(other);
    }
    for last in (1..attributes.len()).rev() {
        attributes.swap(last, dice.below(last + 1));
    }
    attributes
}

fn odd_address(dice: &mut Dice, transaction: TransactionId, peers: &[SocketAddr]) -> Vec<u8> {
    let peer = dice.of(peers);
    let SocketAddr::V4(v4) = peer else { panic!("the peers of this test have IPv4 addresses") };
    let mapped = SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port());
    let others = [
        mapped,
        SocketAddr::new(peer.ip(), 0),
        "0.0.0.0:5000".parse().expect("an address"),
        "127.0.0.1:5000".parse().expect("an address"),
        "[2001:db8:2::2]:5000".parse().expect("an address"),
    ];
    let address = if dice.once_in(6) { dice.of(&others) } else { peer };
    let builder = MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Request).transaction(transaction);
    let message = builder.xor_address(XOR_PEER_ADDRESS, address).build();
    // Behind the header of the message and that of its only attribute.
    let mut value = message[24..].to_vec();
    if dice.once_in(6) {
        value[0] = dice.of(&[1, 0xff]);
    }
    if dice.once_in(12) {
        value[1] = dice.of(&[0, 1, 2, 3]);
    }
    if dice.once_in(12) {
        let length = dice.of(&[0, 4, 7, 9, 12, 20, 24]);
        value.resize(length, 0);
    }
    value
}

/// Now and then a wrong length or a wrong byte at the end.
fn spoil(dice: &mut Dice, bytes: &mut Vec<u8>) {
    match dice.below(24) {
        0 => bytes.extend([0x80, 0x22, 0, 0]),
        1 => bytes.push(0),
        2 => bytes[3] = bytes[3].wrapping_add(4),
        3 => bytes[3] = bytes[3].wrapping_sub(4),
        4 => *bytes.last_mut().expect("a message") ^= 1,
        _ => {}
    }
}

/// Sends on every channel and has the server answer to something later; returns who received on which channel.
fn deliveries(
    client: &mut TurnClient,
    peers: &[UdpSocket],
    addresses: &[SocketAddr],
    tail: &[u8],
) -> Bindings {
    for channel in CHANNELS {
        client.send_channel_data(channel, &channel.to_be_bytes(), tail).expect("the client sends");
    }
    client.create_permission(addresses).expect("permissions");
    while client.receive(Duration::ZERO).expect("the client receives").is_some() {}
    let mut bindings = Bindings::new();
    for (peer, address) in peers.iter().zip(addresses) {
        while let Some((payload, _)) = receive(peer, Duration::ZERO).expect("a peer receives") {
            let number = payload.first_chunk().expect("the number of a channel");
            let before = bindings.insert(u16::from_be_bytes(*number), *address);
            assert_eq!(before, None, "one packet arrived twice");
        }
    }
    bindings
}

/// What the server has bound, found out by ChannelData that turn-bpf leaves to the server: bytes follow that are no padding.
fn bound(client: &mut TurnClient, peers: &[UdpSocket], addresses: &[SocketAddr]) -> Bindings {
    deliveries(client, peers, addresses, &[0; 6])
}

fn learned(offload: &Offload, client: &TurnClient) -> Bindings {
    offload.wait_until_all_is_read();
    let client = client.address().expect("the client's address");
    let sessions = offload.sessions().into_iter().filter(|session| session.client == client);
    let number = |channel: &str| u16::from_str_radix(channel.trim_start_matches("0x"), 16);
    sessions.map(|session| (number(&session.channel).expect("a number"), session.peer)).collect()
}

/// What is learned and not bound, or bound to another peer.
fn wrong(is_learned: &Bindings, is_bound: &Bindings) -> Vec<u16> {
    let wrong = is_learned.iter().filter(|(channel, peer)| is_bound.get(channel) != Some(peer));
    wrong.map(|(channel, _)| *channel).collect()
}

#[test]
fn a8_a9_whatever_is_learned_of_random_requests_is_what_the_server_bound() {
    let offload = options().default_terms().start();
    let mut dice = Dice(Box::new(noise(SEED)));
    let peers: Vec<_> = (0..PEERS).map(|_| offload.peer()).collect();
    let addresses: Vec<_> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (mut client, _) = offload.allocated_client();
        client.create_permission(&addresses).unwrap();
        let mut transactions = Vec::new();
        let mut misled = Vec::new();
        let mut was_bound = Bindings::new();
        for _ in 0..REQUESTS_OF_A_CLIENT {
            let request = Request::new(&mut dice, &client, &addresses, &transactions);
            let is_new = !transactions.contains(&request.transaction);
            transactions.push(request.transaction);
            client.send_raw(&request.bytes).unwrap();
            let is_bound = bound(&mut client, &peers, &addresses);
            if request.is_plain && is_new && is_bound != was_bound {
                let new = is_bound.iter().find(|(channel, _)| !was_bound.contains_key(channel));
                let (channel, peer) = new.expect("a server that binds anew takes nothing away");
                wait_until("a plain request is learned", || {
                    learned(&offload, &client).get(channel) == Some(peer)
                });
            }
            // The first time the server relays, and the second time turn-bpf does if it thinks that it may.
            for _ in 0..2 {
                let delivered = deliveries(&mut client, &peers, &addresses, &[0; 2]);
                assert_eq!(delivered, is_bound, "{:02x?}", request.bytes);
            }
            for channel in wrong(&learned(&offload, &client), &is_bound) {
                // Servers differ in whether they look behind MESSAGE-INTEGRITY. Then one peer is learned and another is bound, and
                // nothing is relayed, as has just been seen.
                let is_excused = misled.contains(&channel) || request.has_hidden_attributes;
                assert!(is_excused, "{channel:#06x} is learned and not bound: {:02x?}", request.bytes);
                misled.push(channel);
            }
            was_bound = is_bound;
        }
        clients.push((client, misled));
    }
    let kernel_packets = offload.kernel_packets();
    let (mut bound_at_all, mut learned_at_all, mut misled_at_all) = (0, 0, 0);
    for (client, misled) in &mut clients {
        let is_bound = bound(client, &peers, &addresses);
        let is_learned = learned(&offload, client);
        let is_wrong = wrong(&is_learned, &is_bound);
        assert!(is_wrong.iter().all(|channel| misled.contains(channel)), "{is_learned:x?}, {is_bound:x?}");
        bound_at_all += is_bound.len();
        learned_at_all += is_learned.len();
        misled_at_all += is_wrong.len();
    }
    println!(
        "{bound_at_all} bound, {learned_at_all} learned, {misled_at_all} of them wrong, {kernel_packets} packets relayed"
    );
    assert!(bound_at_all >= CLIENTS && learned_at_all >= CLIENTS / 2 && kernel_packets >= 200);
}
