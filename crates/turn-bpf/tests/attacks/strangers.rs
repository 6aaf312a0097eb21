//! Senders that have no part in a call, though they know its addresses.

use std::net::SocketAddr;
use std::time::Duration;

use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::packet::channel_data;
use turn_testkit::turn_client::{Received, TurnClient};

use crate::forger::{Forger, hears_nothing, talk};
use crate::{CHANNEL, options};

const FORGERIES: u64 = 2000;

/// Packets that the kernel relayed on the channel.
fn relayed(offload: &Offload, client: &TurnClient) -> u64 {
    let session = offload.session(client, CHANNEL).unwrap();
    session.client_to_peer.kernel_packets + session.peer_to_client.kernel_packets
}

/// Permissions are for addresses; a channel is for one port of one of them (RFC 8656 sections 9 and 12).
#[test]
fn a26_another_port_of_the_peer_gets_the_servers_data_indication() {
    let offload = options().default_terms().start();
    let (mut client, relayed_address) = offload.allocated_client();
    let (peer, other) = (offload.peer(), offload.peer());
    let _pumps = offload.steady(&mut client, CHANNEL, relayed_address, &peer);
    let other_address = other.local_addr().unwrap();
    other.send_to(b"from another port", relayed_address).unwrap();
    let indication = loop {
        match client.receive(PATIENCE).unwrap().expect("a Data indication") {
            Received::ChannelData { data, .. } => assert_ne!(data, b"from another port"),
            other => break other,
        }
    };
    let expected = Received::DataIndication { peer: other_address, data: b"from another port".to_vec() };
    assert_eq!(indication, expected);
    assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "kernel");
}

/// Everything is right but one address or port (RFC 8656 sections 5, 9 and 21.1.4).
#[test]
fn a25_who_is_not_exactly_the_client_or_the_peer_is_left_to_the_server() {
    let offload = options().default_terms().daemon(&["--heartbeat=50s", "--lease=60s"]).start();
    let (mut client, relayed_address) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let (client_address, peer_address) = (client.address().unwrap(), peer.local_addr().unwrap());
    let before = relayed(&offload, &client);
    let unknown = offload.count("no_flow");

    let beside = |address: SocketAddr| SocketAddr::new(address.ip(), address.port() ^ 1);
    let stranger: SocketAddr = "198.18.2.99:5000".parse().unwrap();
    let (listener, to_peer) = (offload.listener(), channel_data(CHANNEL, b"forged", &[]));
    let other_channel = channel_data(CHANNEL + 1, b"forged", &[]);
    let [at_client, at_peer] = [Forger::beside_client(&offload), Forger::beside_peer(&offload)];
    for _ in 0..FORGERIES / 4 {
        at_client.send(beside(client_address), listener, &to_peer);
        at_client.send(client_address, listener, &other_channel);
        at_peer.send(stranger, relayed_address, b"forged");
        at_peer.send(SocketAddr::new(stranger.ip(), peer_address.port()), relayed_address, b"forged");
    }
    wait_until("all have been looked at", || offload.count("no_flow") >= unknown + FORGERIES);
    client.create_permission(&[peer_address]).unwrap();
    assert_eq!(relayed(&offload, &client), before);
    hears_nothing(&peer);
    assert_eq!(client.receive(Duration::from_millis(20)).unwrap(), None);
    talk(&client, CHANNEL, &peer);
}
