//! Peers that nobody should reach through the kernel, whatever the server thinks of them.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use turn_testkit::lab::Family;
use turn_testkit::offload::PATIENCE;
use turn_testkit::turn_client::Received;
use turn_testkit::turn_client::message::random_transaction_id;

use crate::forger::{channel_bind, hears_nothing};
use crate::{CHANNEL, options};

#[test]
fn a15_the_host_itself_and_special_addresses_are_not_relayed_to() {
    let offload = options().coturn(&["--allow-loopback-peers"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let addresses = offload.lab.addresses(Family::V4);
    let of = |address: &str| address.parse::<SocketAddr>().unwrap();
    let targets = [
        offload.listener(),
        relayed,
        SocketAddr::new(addresses.relay, 22),
        SocketAddr::new(addresses.listen, 5000),
        of("127.0.0.1:22"),
        of("127.0.0.1:3478"),
        of("0.0.0.0:22"),
        of("169.254.169.254:80"),
        of("224.0.0.1:5353"),
        of("255.255.255.255:9"),
        of("198.18.2.255:9"),
        SocketAddr::new(addresses.peer, 0),
    ];
    for (channel, target) in (CHANNEL..).zip(targets) {
        let request = channel_bind(&client, random_transaction_id(), channel, target).build();
        let answer = client.exchange(&request).unwrap();
        for _ in 0..20 {
            client.send_channel_data(channel, b"to where it should not go", &[]).unwrap();
        }
        // The server's answer to something later.
        client.create_permission(&[SocketAddr::new(addresses.peer, 9)]).unwrap();
        assert_eq!(offload.kernel_packets(), 0, "{target}: {:?}", answer.error_code());
    }
    let sessions = offload.sessions();
    assert!(
        sessions.iter().all(|session| session.peer.ip() == IpAddr::from([198, 18, 2, 255])),
        "{sessions:?}"
    );
}

/// Two channels that lead to each other's relayed transport addresses: what one client sends the other one gets, once.
#[test]
fn a16_channels_that_are_bound_crosswise_make_no_loop() {
    const PACKETS: u8 = 100;
    let offload = options().start();
    let (mut one, relayed_one) = offload.allocated_client();
    let (mut two, relayed_two) = offload.allocated_client();
    one.channel_bind(CHANNEL, relayed_two).unwrap();
    two.channel_bind(CHANNEL, relayed_one).unwrap();
    for number in 0..PACKETS {
        one.send_channel_data(CHANNEL, &[number; 50], &[]).unwrap();
        let received = two.receive(PATIENCE).unwrap();
        assert!(matches!(received, Some(Received::ChannelData { data, .. }) if data == [number; 50]));
        two.send_channel_data(CHANNEL, &[number; 60], &[]).unwrap();
        let received = one.receive(PATIENCE).unwrap();
        assert!(matches!(received, Some(Received::ChannelData { data, .. }) if data == [number; 60]));
    }
    for client in [&mut one, &mut two] {
        assert_eq!(client.receive(Duration::from_millis(100)).unwrap(), None, "each packet came once");
    }
    assert!(offload.kernel_packets() <= 2 * u64::from(PACKETS), "{}", offload.kernel_packets());
}

/// The server's own list of addresses that nobody may reach.
#[test]
fn pm12_a_peer_that_the_server_denies_is_not_learned() {
    let offload = options().coturn(&["--denied-peer-ip=198.18.2.2"]).start();
    let (mut client, _) = offload.allocated_client();
    let peer = offload.peer();
    let refused = client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap_err();
    assert_eq!(refused.code(), Some(403));
    for _ in 0..20 {
        client.send_channel_data(CHANNEL, b"denied", &[]).unwrap();
    }
    client.refresh(600).unwrap();
    assert_eq!(offload.sessions(), []);
    assert_eq!(offload.kernel_packets(), 0);
    hears_nothing(&peer);
}
