//! The server is gone and has told nobody.

use std::thread::sleep;
use std::time::{Duration, Instant};

use turn_testkit::wire::Observer;

use crate::{CHANNEL, options};

#[test]
fn a21_a_killed_server_relays_nothing_after_ten_seconds() {
    let mut offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let [at_client, at_peer] = [(&offload.lab.client, "cli0"), (&offload.lab.peer, "peer0")]
        .map(|(namespace, interface)| Observer::start(namespace, interface).unwrap());
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    offload.take_coturn().kill().unwrap();
    let killed = Instant::now();
    offload.wait_until_unbound(&client, CHANNEL);
    sleep((killed + Duration::from_secs(11)).saturating_duration_since(Instant::now()));
    for (observer, destination) in
        [(&at_client, client.address().unwrap()), (&at_peer, peer.local_addr().unwrap())]
    {
        let last = observer.last_for(destination).unwrap();
        assert!(last < killed + Duration::from_millis(10_150), "{:?}", last - killed);
    }
}
