//! The server's own addresses change.

use std::thread::sleep;
use std::time::{Duration, Instant};

use turn_testkit::figures::Figures;
use turn_testkit::wire::Observer;

use crate::{CHANNEL, modes, options};

/// A tick of the clock that leases use, and a busy machine.
const MARGIN: Duration = Duration::from_millis(250);
const LEASE: Duration = Duration::from_secs(1);

/// The server can no longer send from its relayed transport address, and the kernel follows after one lease. coturn gives the allocation up
/// when the address comes back, which is seen at once; the client's next one is relayed in the kernel.
#[test]
fn an_address_that_is_removed_is_relayed_from_for_one_lease_at_the_most() {
    for mode in modes() {
        let offload = options().mode(mode).start();
        let (mut client, relayed) = offload.allocated_client();
        let peer = offload.peer();
        let at_peer = Observer::start(&offload.lab.peer, "peer0").unwrap();
        let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
        let peer_address = peer.local_addr().unwrap();
        let address = format!("{}/24", relayed.ip());

        let removed = Instant::now();
        offload.lab.server.run("ip", &["address", "delete", &address, "dev", "srv1"]).unwrap();
        sleep(LEASE + LEASE);
        let last = at_peer.last_for(peer_address).unwrap();
        let outlived = last.saturating_duration_since(removed);
        assert!(outlived < LEASE + MARGIN, "{mode}: {outlived:?}");

        let back = Instant::now();
        offload.lab.server.run("ip", &["address", "add", &address, "dev", "srv1"]).unwrap();
        offload.wait_until_unbound(&client, CHANNEL);
        let noticed = back.elapsed();
        drop(pumps);
        client.drain().unwrap();
        assert_eq!(client.refresh(600).unwrap_err().code(), Some(437), "{mode}");
        client.allocate(None, None).unwrap();
        offload.bind_and_arm_to_peer(&mut client, CHANNEL, &offload.peer());
        Figures::of("address-removed").outlived(outlived).healed(noticed).report();
    }
}
