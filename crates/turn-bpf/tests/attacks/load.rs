//! Forged packets as fast as a host can send them that is neither client nor peer, but is on their wires: a million of a kind with
//! `cargo xtask reliability`, fewer in CI. They change nothing, and a call beside them stays where it is.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turn_testkit::figures::{Figures, times};
use turn_testkit::lab::Namespace;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::packet::{Packet, channel_data};
use turn_testkit::role::Mac;
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    Class, LIFETIME, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH,
    MessageBuilder, XOR_MAPPED_ADDRESS, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS, random_transaction_id,
};
use turn_testkit::wire::{Wire, mac};

use crate::{CHANNEL, options};

/// Different frames, which are sent again and again.
const FRAMES: u32 = 8192;
/// Of the call beside, in packets a second.
const RATE: u32 = 200;
/// More than all tables of strangers can take.
const MEMORY: u64 = 32 << 20;

/// Who is who, for those who forge.
struct Scene<'a> {
    client: &'a TurnClient,
    client_address: SocketAddr,
    listener: SocketAddr,
    relayed: SocketAddr,
    peer: SocketAddr,
}

impl Scene<'_> {
    /// Somebody with an address beside the client's or the peer's.
    fn stranger(beside: SocketAddr, number: u32) -> SocketAddr {
        let IpAddr::V4(ip) = beside.ip() else { panic!("an IPv4 lab") };
        let [a, b, c, _] = ip.octets();
        SocketAddr::new(
            [a, b, c, 3 + (number % 250) as u8].into(),
            1024 + (number.wrapping_mul(7919) % 60_000) as u16,
        )
    }
}

/// On which of the third host's wires.
#[derive(Clone, Copy)]
enum Side {
    Client,
    Peer,
}

/// Says that it is over when dropped, also by a panic.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends packets to an echoing peer until it is told to end. Returns how many, and how many did not come back.
fn talk_until(is_over: &AtomicBool, client: &mut TurnClient) -> (u64, u64) {
    let (mut sent, mut lost) = (0, 0);
    for stream in 1.. {
        let traffic = Traffic { stream, sizes: 200..=200, rate: RATE, duration: Duration::from_secs(1) };
        let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
        assert_eq!((report.tally.altered, report.tally.duplicated), (0, 0));
        (sent, lost) = (sent + report.sent, lost + report.lost());
        if is_over.load(Ordering::Relaxed) {
            break;
        }
    }
    (sent, lost)
}

/// Forges many packets beside a running call, and checks that nothing came of it.
fn flood(fault: &str, side: Side, forge: impl Fn(&Scene, u32) -> (SocketAddr, SocketAddr, Vec<u8>)) {
    let packets = times(250_000, 1_000_000);
    let mut offload = options().default_terms().log_level("info").start();
    let third = offload.lab.add_third_host().unwrap();
    let (mut client, relayed) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let client_address = client.address().unwrap();
    let (wire, macs) = wire(&third, &offload, side);
    let scene = Scene {
        client: &client,
        client_address,
        listener: offload.listener(),
        relayed,
        peer: echo.address(),
    };
    let frames: Vec<Vec<u8>> = (0..FRAMES)
        .map(|number| {
            let (source, destination, payload) = forge(&scene, number);
            Packet::new(source, destination).macs(macs.0, macs.1).payload(&payload).build()
        })
        .collect();

    let memory = offload.daemon().memory().unwrap();
    let processing = offload.daemon().process().cpu_time().unwrap();
    let status = offload.daemon().status().unwrap();
    let known = (status.allocations, status.bindings);
    let is_over = AtomicBool::new(false);
    let overflows = offload.lab.server.udp_overflows().unwrap();
    let (mut looks, mut without_lease, mut healed) = (0, 0, Duration::ZERO);
    let before = offload.session(&client, CHANNEL).unwrap();
    let start = Instant::now();
    let (sent, lost, took) = thread::scope(|scope| {
        let call = scope.spawn(|| talk_until(&is_over, &mut client));
        let end = End(&is_over);
        for round in 0..packets.div_ceil(FRAMES) {
            wire.send_all(&frames).unwrap();
            if round % 16 == 0 {
                let rows = offload.sessions();
                assert_eq!(rows.len(), 1, "after {} packets", round * FRAMES);
                // Where the server's own sockets overflow, heartbeats are lost in them, and a lease may end before one gets through.
                if rows[0].state != "kernel" {
                    let overflowed = offload.lab.server.udp_overflows().unwrap() - overflows;
                    assert!(overflowed > 0, "after {} packets: {:?}", round * FRAMES, rows[0]);
                    without_lease += 1;
                }
                looks += 1;
            }
        }
        let took = start.elapsed();
        // The flood is over and the call goes on.
        let over = Instant::now();
        wait_until("the call is in the kernel", || offload.sessions()[0].state == "kernel");
        healed = over.elapsed();
        drop(end);
        let (sent, lost) = call.join().unwrap();
        (sent, lost, took)
    });
    let after = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((after.state.as_str(), after.peer), ("kernel", echo.address()));
    let status = offload.daemon().status().unwrap();
    assert_eq!((status.allocations, status.bindings), known, "nothing was learned and nothing forgotten");
    let by_kernel = after.client_to_peer.kernel_packets - before.client_to_peer.kernel_packets;
    assert!(by_kernel > sent / 2, "{by_kernel} of {sent} packets");
    let overflowed = offload.lab.server.udp_overflows().unwrap() - overflows;
    let grown = offload.daemon().memory().unwrap().saturating_sub(memory);
    assert!(grown < MEMORY, "{grown} bytes more");
    let processing = offload.daemon().process().cpu_time().unwrap() - processing;
    assert!(processing < start.elapsed(), "{processing:?} in {:?}", start.elapsed());
    Figures::of(fault)
        .lost(lost, sent)
        .healed(healed)
        .count("forged packets", packets.into())
        .count("forged packets a second", (f64::from(packets) / took.as_secs_f64()) as u64)
        .count("looks at the call", looks)
        .count("of them found a lease over", without_lease)
        .count("packets that the server's sockets had no room for", overflowed)
        .count("packets of the call to its peer that the kernel relayed", by_kernel)
        .count("ms of turn-bpf's CPU time", processing.as_millis() as u64)
        .count("KiB more memory", grown / 1024)
        .report();
    client.refresh(600).unwrap();
    assert_eq!(offload.session(&client, CHANNEL).unwrap().peer, echo.address());
}

fn wire(third: &Namespace, offload: &Offload, side: Side) -> (Wire, (Mac, Mac)) {
    let (own, servers) = match side {
        Side::Client => ("third0", "srv0"),
        Side::Peer => ("third1", "srv1"),
    };
    (Wire::open(third, own).unwrap(), (mac(&offload.lab.server, servers).unwrap(), mac(third, own).unwrap()))
}

/// Half of them in the name of the client whose call is running, half in the names of clients that do not exist.
#[test]
fn a17_a_million_forged_requests_change_nothing() {
    flood("spoofed-requests", Side::Client, |scene, number| {
        let source = match number % 2 {
            0 => scene.client_address,
            _ => Scene::stranger(scene.client_address, number),
        };
        let attacker = Scene::stranger(scene.peer, number);
        let builder = match number / 2 % 4 {
            0 => scene
                .client
                .builder(METHOD_CHANNEL_BIND)
                .channel_number(CHANNEL)
                .xor_address(XOR_PEER_ADDRESS, attacker),
            1 => {
                let channel = 0x4000 + (number % 0x1000) as u16;
                scene
                    .client
                    .builder(METHOD_CHANNEL_BIND)
                    .channel_number(channel)
                    .xor_address(XOR_PEER_ADDRESS, attacker)
            }
            2 => scene.client.builder(METHOD_REFRESH).lifetime(0),
            _ => scene.client.builder(METHOD_CREATE_PERMISSION).xor_address(XOR_PEER_ADDRESS, attacker),
        };
        let request = builder.transaction(random_transaction_id()).broken_integrity();
        (source, scene.listener, request.build())
    });
}

/// Everything is right but one thing: the channel, the port or the address of the client, or the port of the server.
#[test]
fn a25_a_million_forged_channel_data_messages_change_nothing() {
    flood("spoofed-channel-data", Side::Client, |scene, number| {
        let other = 0x4002 + (number % 0x1000) as u16;
        let port = |address: SocketAddr| {
            SocketAddr::new(address.ip(), address.port() ^ (1 + (number % 1000) as u16))
        };
        let (source, destination, channel) = match number % 4 {
            0 => (scene.client_address, scene.listener, other),
            1 => (port(scene.client_address), scene.listener, CHANNEL),
            2 => (Scene::stranger(scene.client_address, number), scene.listener, CHANNEL),
            _ => (scene.client_address, port(scene.listener), CHANNEL),
        };
        (source, destination, channel_data(channel, b"forged, and of no use to anybody", &[]))
    });
}

/// From other addresses than the peer's, and to other relayed transport addresses. Other ports of the peer's address have a permission, and
/// what they send is the server's to relay.
#[test]
fn a25_a_million_forged_datagrams_of_peers_change_nothing() {
    flood("spoofed-peers", Side::Peer, |scene, number| {
        let other = SocketAddr::new(scene.relayed.ip(), scene.relayed.port() ^ (1 + (number % 1000) as u16));
        let (source, destination) = match number % 3 {
            0 => (Scene::stranger(scene.peer, number), scene.relayed),
            1 => (SocketAddr::new(scene.client_address.ip(), scene.peer.port()), scene.relayed),
            _ => (scene.peer, other),
        };
        (source, destination, b"forged, and of no use to anybody".to_vec())
    });
}

/// In the server's name to the client and to others, as if the server had sent them.
#[test]
fn a11_a_million_forged_responses_change_nothing() {
    flood("spoofed-responses", Side::Client, |scene, number| {
        let destination = match number % 2 {
            0 => scene.client_address,
            _ => Scene::stranger(scene.client_address, number),
        };
        let response =
            |method| MessageBuilder::new(method, Class::Success).transaction(random_transaction_id());
        let response = match number / 2 % 3 {
            0 => response(METHOD_REFRESH).lifetime(0),
            1 => response(METHOD_CHANNEL_BIND),
            _ => response(METHOD_ALLOCATE)
                .xor_address(XOR_RELAYED_ADDRESS, SocketAddr::new(scene.relayed.ip(), 1024 + number as u16))
                .xor_address(XOR_MAPPED_ADDRESS, destination)
                .attribute(LIFETIME, &600_u32.to_be_bytes()),
        };
        (scene.listener, destination, response.build())
    });
}
