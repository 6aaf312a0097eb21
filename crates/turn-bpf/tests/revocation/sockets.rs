//! Relay sockets that close: nothing on the wire says so, and the lease has long to run.

use std::time::Instant;

use turn_testkit::offload::wait_until;

use crate::{CHANNEL, options};

#[test]
fn a_killed_server_is_noticed_long_before_its_leases_end() {
    let mut offload = options().default_terms().start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let killed = Instant::now();
    offload.take_coturn().kill().unwrap();
    wait_until("the flows are gone", || offload.sessions().is_empty());
    let noticed = killed.elapsed();
    assert!(noticed.as_secs() < 5, "a lease is 10 s, and it took {noticed:?}");

    let before = offload.kernel_packets();
    for _ in 0..10 {
        client.send_channel_data(CHANNEL, b"to nobody", b"").unwrap();
    }
    wait_until("the packets came in", || offload.count("no_flow") >= 10);
    assert_eq!(offload.kernel_packets(), before);
}
