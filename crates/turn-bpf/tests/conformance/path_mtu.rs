//! A hop behind the server's first one takes less than the interface does.

use std::time::{Duration, Instant};

use turn_testkit::datagram::receive;
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::PATIENCE;

use crate::{CHANNEL, options};

const LEASE: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_millis(500);
/// More than the hop takes in one piece, and less than the interface.
const BIG: [u8; 1350] = [7; 1350];

/// Routers do not fragment IPv6, but tell the host. The kernel side does not hear of it; but the server's packets leave in fragments
/// from then on, which are no witnesses.
#[test]
fn sd6_packets_too_big_for_a_later_hop_are_lost_for_one_lease_at_most() {
    let offload = options().topology(Topology::One).start();
    let router = offload.lab.router.as_ref().unwrap();
    router.run("ip", &["link", "set", "rtr-peer", "mtu", "1300"]).unwrap();
    offload.lab.peer.run("ip", &["link", "set", "peer0", "mtu", "1300"]).unwrap();
    let (mut client, _) = offload.allocated_client_of(Family::V6, Family::V6);
    let peer = offload.peer_of(Family::V6);
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);

    let armed = Instant::now();
    while offload.session(&client, CHANNEL).unwrap().state != "userspace" {
        client.send_channel_data(CHANNEL, &BIG, &[]).unwrap();
        // Those that get through go by the server.
        let _lost = receive(&peer, Duration::from_millis(20)).unwrap();
        assert!(armed.elapsed() < LEASE + MARGIN, "{:?}", offload.session(&client, CHANNEL));
    }
    while receive(&peer, Duration::from_millis(20)).unwrap().is_some() {}
    for _ in 0..100 {
        client.send_channel_data(CHANNEL, &BIG, &[]).unwrap();
        assert_eq!(receive(&peer, PATIENCE).unwrap().map(|(payload, _)| payload), Some(BIG.to_vec()));
    }
    assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "userspace");
}
