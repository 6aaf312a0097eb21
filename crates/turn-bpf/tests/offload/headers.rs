//! What is on the wire: every byte of a relayed frame follows from the frame that came in, and from how the server's own look.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::sockopt::set_ip_tos;
use turn_testkit::datagram::receive;
use turn_testkit::dissect::{Dissected, Network, dissect};
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::oracle::{Leg, Rule, check};
use turn_testkit::traffic::{Carrier as _, Channel};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::wire::{Wire, mac};

use crate::{CHANNEL, options};

/// Both ways through two interfaces, with the client's and the peer's end of the wire side by side.
struct Ends {
    client_side: Wire,
    peer_side: Wire,
    to_peer: Rule,
    to_client: Rule,
}

impl Ends {
    fn of(offload: &Offload, client: &TurnClient, relayed: SocketAddr, peer: SocketAddr) -> Self {
        let lab = &offload.lab;
        let [client_mac, peer_mac] =
            [(&lab.client, "cli0"), (&lab.peer, "peer0")].map(|(ns, interface)| mac(ns, interface).unwrap());
        let [server_mac, relay_mac] = ["srv0", "srv1"].map(|interface| mac(&lab.server, interface).unwrap());
        let (client, server) = (client.address().unwrap(), client.server());
        let leg = |source, destination, channel| Leg { source, destination, channel };
        Self {
            client_side: Wire::open(&lab.client, "cli0").unwrap(),
            peer_side: Wire::open(&lab.peer, "peer0").unwrap(),
            to_peer: Rule::new(
                leg(client, server, Some(CHANNEL)),
                leg(relayed, peer, None),
                peer_mac,
                relay_mac,
            ),
            to_client: Rule::new(
                leg(peer, relayed, None),
                leg(server, client, Some(CHANNEL)),
                client_mac,
                server_mac,
            ),
        }
    }

    /// The four frames of one round trip.
    fn round_trip(&self) -> [Vec<u8>; 4] {
        let frame = |wire: &Wire, leg: Leg| {
            wire.find(PATIENCE, |frame| {
                let packet = dissect(&frame.bytes).ok()?;
                ((packet.source, packet.destination) == (leg.source, leg.destination))
                    .then(|| frame.bytes.clone())
            })
            .unwrap()
            .expect("a frame")
        };
        [
            frame(&self.client_side, self.to_peer.input),
            frame(&self.peer_side, self.to_peer.output),
            frame(&self.peer_side, self.to_client.input),
            frame(&self.client_side, self.to_client.output),
        ]
    }
}

fn dont_fragment(packet: &Dissected) -> bool {
    matches!(packet.network, Network::V4 { dont_fragment: true, .. })
}

#[test]
fn relayed_frames_are_what_the_oracle_says() {
    for mode in ["native", "tc", "generic"] {
        let mut offload = options().mode(mode).default_terms().start_without_daemon();
        let (mut client, relayed) = offload.allocated_client();
        let peer = offload.peer();
        let peer_address = peer.local_addr().unwrap();
        client.channel_bind(CHANNEL, peer_address).unwrap();
        let mut ends = Ends::of(&offload, &client, relayed, peer_address);
        let round_trip = |client: &mut TurnClient, payload: &[u8]| {
            let mut channel = Channel { client, number: CHANNEL };
            channel.send(payload).unwrap();
            let (received, source) = receive(&peer, PATIENCE).unwrap().expect("at the peer");
            assert_eq!((received.as_slice(), source), (payload, relayed));
            peer.send_to(payload, relayed).unwrap();
            assert_eq!(channel.receive(PATIENCE).unwrap().as_deref(), Some(payload));
        };
        // What the server itself does with DF is the rule for the offload.
        round_trip(&mut client, b"by the server itself");
        let [_, to_peer, _, to_client] = ends.round_trip().map(|frame| dissect(&frame).unwrap());
        ends.to_peer.dont_fragment = dont_fragment(&to_peer);
        ends.to_client.dont_fragment = dont_fragment(&to_client);

        client.refresh(0).unwrap();
        offload.start_daemon();
        let (mut client, relayed) = offload.allocated_client();
        client.channel_bind(CHANNEL, peer_address).unwrap();
        offload.wait_for_session(&client, CHANNEL, |_| true);
        let terms = (ends.to_peer.dont_fragment, ends.to_client.dont_fragment);
        let mut ends = Ends::of(&offload, &client, relayed, peer_address);
        (ends.to_peer.dont_fragment, ends.to_client.dont_fragment) = terms;
        let mut channel = Channel { client: &mut client, number: CHANNEL };
        // As long as the longest of them, so that the server has been seen to send that in one piece.
        channel.send(&[1; 1200]).unwrap();
        receive(&peer, PATIENCE).unwrap().expect("at the peer");
        peer.send_to(&[2; 1200], relayed).unwrap();
        channel.receive(PATIENCE).unwrap().expect("at the client");
        offload.wait_for_session(&client, CHANNEL, |session| session.state == "kernel");
        ends.round_trip();

        let before = offload.kernel_packets();
        let mut count = 0;
        // DSCP with each ECN codepoint, among them congestion experienced.
        for (traffic_class, hop_limit) in [(0, 64), (0xb8, 64), (0x29, 2), (0x4a, 255), (0xff, 17)] {
            for socket in [client.socket(), &peer] {
                set_ip_tos(socket, traffic_class).unwrap();
                socket.set_ttl(hop_limit).unwrap();
            }
            for size in [0, 1, 2, 3, 4, 5, 64, 1199, 1200] {
                let payload: Vec<u8> = (0..size).map(|at| (at * 3 + 1) as u8).collect();
                let mut channel = Channel { client: &mut client, number: CHANNEL };
                channel.send(&payload).unwrap();
                receive(&peer, PATIENCE).unwrap().expect("at the peer");
                peer.send_to(&payload, relayed).unwrap();
                channel.receive(PATIENCE).unwrap().expect("at the client");
                let [to_peer_in, to_peer_out, to_client_in, to_client_out] = ends.round_trip();
                let what = format!("{size} bytes, class {traffic_class:#04x}, hop limit {hop_limit}, {mode}");
                assert_eq!(check(&to_peer_in, &ends.to_peer, &to_peer_out), Ok(()), "{what}");
                assert_eq!(check(&to_client_in, &ends.to_client, &to_client_out), Ok(()), "{what}");
                count += 2;
            }
        }
        // But for the heartbeats, none of these frames is the server's own.
        assert!(offload.kernel_packets() - before >= count - 8, "{mode}");
    }
}

#[test]
fn the_last_hop_is_left_to_the_server() {
    let offload = options().terms(Duration::from_secs(50), Duration::from_secs(60)).start();
    let (mut client, _) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let before = offload.kernel_packets();
    client.socket().set_ttl(1).unwrap();
    for _ in 0..5 {
        client.send_channel_data(CHANNEL, b"for the server", &[]).unwrap();
    }
    wait_until("they are counted", || offload.count("hop_limit") == 5);
    assert_eq!(offload.kernel_packets(), before);
    let _whatever_the_server_makes_of_them = receive(&peer, Duration::from_millis(100));
}
