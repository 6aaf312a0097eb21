//! Without and with turn-bpf the same datagrams arrive, to the last bit that applications can see.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::net::sockopt::{set_ip_tos, set_ipv6_tclass};
use turn_testkit::datagram::receive;
use turn_testkit::dissect::dissect;
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{DATA, Message, XOR_PEER_ADDRESS};
use turn_testkit::wire::Wire;

use crate::{CHANNEL, FAMILY_PAIRS, options};

const UNBOUND: u16 = 0x4abc;
/// And the next ones: coturn takes a second to be done with a 5-tuple.
const CLIENT_PORT: u16 = 40000;
const PEER_PORT: u16 = 5000;
const STRANGER_PORT: u16 = 5001;
/// Stands for the port of the relayed transport address, which the server chooses at random.
const RELAYED_PORT: u16 = 1;
/// DSCP with each ECN codepoint.
const TRAFFIC_CLASSES: [u8; 6] = [0, 0xb8, 0x29, 0x4a, 0x03, 0xff];

/// What an application, or the one who looks at its wire, can tell a datagram by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Heard {
    source: SocketAddr,
    destination: SocketAddr,
    /// DSCP and ECN.
    traffic_class: u8,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Content {
    /// Of a response only what is the same each time.
    Response {
        method: u16,
        class: String,
        code: Option<u16>,
    },
    DataIndication {
        peer: SocketAddr,
        data: Vec<u8>,
    },
    Bytes(Vec<u8>),
}

type Multiset = BTreeMap<Heard, u32>;

/// What client and peers hear in one run of the script, for one pair of families.
fn script(offload: &Offload, number: u16, is_offloaded: bool) -> Multiset {
    let (client_family, peer_family) = FAMILY_PAIRS[usize::from(number)];
    let lab = &offload.lab;
    let socket =
        lab.client.udp_socket((lab.addresses(client_family).client, CLIENT_PORT + number).into()).unwrap();
    let mut client = TurnClient::new(socket, offload.listener_of(client_family));
    let peer_ip = lab.addresses(peer_family).peer;
    let [peer, stranger] =
        [PEER_PORT, STRANGER_PORT].map(|port| lab.peer.udp_socket((peer_ip, port).into()).unwrap());
    let wires = [Wire::open(&lab.client, "cli0").unwrap(), Wire::open(&lab.peer, "peer0").unwrap()];
    let relayed = client.allocate(Some(peer_family), None).unwrap().relayed;
    client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    if is_offloaded {
        offload.wait_for_session(&client, CHANNEL, |_| true);
    }

    let mut step = 0_u32;
    for round in 0..4_u32 {
        for traffic_class in TRAFFIC_CLASSES {
            for (socket, family) in
                [(client.socket(), client_family), (&peer, peer_family), (&stranger, peer_family)]
            {
                set_traffic_class(socket, family, traffic_class);
            }
            for size in [0_usize, 1, 2, 3, 4, 5, 33, 160, 1000, 1200] {
                step += 1;
                let payload: Vec<u8> = (0..size).map(|at| (at as u32 * 3 + step) as u8).collect();
                client.send_channel_data(CHANNEL, &payload, &[]).unwrap();
                let padding = vec![0xee; size.next_multiple_of(4) - size];
                client.send_channel_data(CHANNEL, &payload, &padding).unwrap();
                peer.send_to(&payload, relayed).unwrap();
                for _ in 0..2 {
                    assert!(receive(&peer, PATIENCE).unwrap().is_some(), "{size} bytes to the peer");
                }
                assert!(client.receive(PATIENCE).unwrap().is_some(), "{size} bytes to the client");
            }
            // What the server throws away, and what it relays in its own ways.
            client.send_channel_data(UNBOUND, b"on no channel", &[]).unwrap();
            client.send_raw(&[&CHANNEL.to_be_bytes()[..], &[0, 9, 1, 2, 3]].concat()).unwrap();
            client.send_raw(&CHANNEL.to_be_bytes()).unwrap();
            client.send_channel_data(CHANNEL, &[round as u8; 8], &[0xee; 4]).unwrap();
            client.send_indication(peer.local_addr().unwrap(), &[round as u8; 20]).unwrap();
            client.send_indication(stranger.local_addr().unwrap(), &[round as u8; 21]).unwrap();
            stranger.send_to(&[round as u8; 22], relayed).unwrap();
            stranger.send_to(&[&CHANNEL.to_be_bytes()[..], &[0, 2, 1, 2]].concat(), relayed).unwrap();
            settle(&peer, &mut client);
        }
    }
    if is_offloaded {
        let row = offload.session(&client, CHANNEL).unwrap();
        for direction in [row.client_to_peer, row.peer_to_client] {
            assert!(direction.kernel_packets > 100, "{row:?}\n{}", offload.log());
        }
    }
    client.refresh(0).unwrap();

    let mut heard = Multiset::new();
    let known = |address: SocketAddr| {
        if address == relayed { SocketAddr::new(address.ip(), RELAYED_PORT) } else { address }
    };
    for frame in wires.iter().flat_map(|wire| wire.seen().unwrap()).filter(|frame| !frame.is_sent) {
        let Ok(packet) = dissect(&frame.bytes) else { continue };
        let packet = packet.verify().expect("right checksums");
        *heard
            .entry(Heard {
                source: known(packet.source),
                destination: known(packet.destination),
                traffic_class: packet.network.traffic_class(),
                content: content(packet.payload),
            })
            .or_default() += 1;
    }
    heard
}

/// Waits until nothing is under way any more, so that no packet overtakes the next ones of the script.
fn settle(peer: &UdpSocket, client: &mut TurnClient) {
    const QUIET: Duration = Duration::from_millis(5);
    while receive(peer, QUIET).unwrap().is_some() || client.receive(QUIET).unwrap().is_some() {}
}

fn set_traffic_class(socket: &UdpSocket, family: Family, traffic_class: u8) {
    match family {
        Family::V4 => set_ip_tos(socket, traffic_class).unwrap(),
        Family::V6 => set_ipv6_tclass(socket, traffic_class.into()).unwrap(),
    }
}

fn content(payload: Vec<u8>) -> Content {
    let Ok(message) = Message::parse(&payload) else { return Content::Bytes(payload) };
    match (message.xor_address(XOR_PEER_ADDRESS), message.attribute(DATA)) {
        (Some(peer), Some(data)) => Content::DataIndication { peer, data: data.to_vec() },
        _ => Content::Response {
            method: message.method,
            class: format!("{:?}", message.class),
            code: message.error_code(),
        },
    }
}

fn run(topology: Topology, mode: Option<&str>) -> Vec<Multiset> {
    let options = options().topology(topology);
    let offload = match mode {
        Some(mode) => options.mode(mode).start(),
        None => options.start_without_daemon(),
    };
    (0..4).map(|number| script(&offload, number, mode.is_some())).collect()
}

fn compare(topology: Topology) {
    let without = run(topology, None);
    for mode in ["native", "tc", "generic"] {
        let with = run(topology, Some(mode));
        for ((pair, without), with) in FAMILY_PAIRS.iter().zip(&without).zip(&with) {
            let only = |one: &Multiset, other: &Multiset| -> Vec<(Heard, u32)> {
                let differing = one.iter().filter(|(heard, count)| other.get(heard) != Some(count));
                differing.map(|(heard, count)| (heard.clone(), *count)).take(6).collect()
            };
            assert!(without.values().sum::<u32>() > 700, "{pair:?}");
            assert!(
                without == with,
                "{pair:?}, {mode}: only without {:#?}\nonly with {:#?}",
                only(without, with),
                only(with, without)
            );
        }
    }
}

#[test]
fn the_same_is_heard_without_and_with_turn_bpf_over_one_interface() {
    compare(Topology::One);
}

#[test]
fn the_same_is_heard_without_and_with_turn_bpf_over_two_interfaces() {
    compare(Topology::Two);
}
