//! What expires at the server expires in the kernel, though nothing on the wire says so.

use std::thread::sleep;
use std::time::{Duration, Instant};

use turn_testkit::offload::{PATIENCE, TO_CLIENT, TO_PEER, wait_until};
use turn_testkit::traffic::Pump;

use crate::server::observers;
use crate::{CHANNEL, options};

const LEASE: Duration = Duration::from_secs(1);
/// coturn counts in whole seconds, looks around once a second, and this machine may be busy.
const COTURN: Duration = Duration::from_millis(2500);

/// What is relayed at TC leaves past the program that looks for the server's own packets. If it counted as one of them, a
/// sender that repeats himself would renew his own lease for ever: every packet looks like the one at the heartbeat.
#[test]
fn what_is_relayed_at_tc_is_no_witness_of_itself() {
    let lifetime = Duration::from_secs(3);
    let offload = options().mode("tc").coturn(&["--channel-lifetime=3", "--permission-lifetime=3"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let bound = Instant::now();
    let _pumps = [
        Pump::channel_repeating(&client, CHANNEL, TO_PEER).unwrap(),
        Pump::datagrams_repeating(&peer, relayed, TO_CLIENT).unwrap(),
    ];
    offload.wait_for_session(&client, CHANNEL, |session| {
        let counts = [session.client_to_peer, session.peer_to_client];
        session.state == "kernel" && counts.iter().all(|counts| counts.kernel_packets > 100)
    });
    offload.wait_for_session(&client, CHANNEL, |session| session.state == "userspace");
    assert!(bound.elapsed() < lifetime + COTURN + LEASE, "{:?}", bound.elapsed());
}

#[test]
fn a_channel_that_expired_and_was_bound_again_brings_the_old_peer_nothing() {
    let lifetime = Duration::from_secs(3);
    let offload = options().coturn(&["--channel-lifetime=3", "--permission-lifetime=3"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let (old_peer, new_peer) = (offload.peer(), offload.peer());
    let old_address = old_peer.local_addr().unwrap();
    let [at_client, at_peer] = observers(&offload);
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &old_peer);
    let bound = Instant::now();
    offload.wait_for_session(&client, CHANNEL, |session| session.state == "userspace");
    assert!(bound.elapsed() < lifetime + COTURN + LEASE, "{:?}", bound.elapsed());

    wait_until("the channel is free", || {
        client.drain().unwrap();
        match client.channel_bind(CHANNEL, new_peer.local_addr().unwrap()) {
            Ok(()) => true,
            Err(error) => error.code() == Some(400) && bound.elapsed() > PATIENCE,
        }
    });
    let bound_again = Instant::now();
    offload.wait_for_session(&client, CHANNEL, |session| {
        session.peer == new_peer.local_addr().unwrap() && session.client_to_peer.kernel_packets > 100
    });
    let late = bound_again + Duration::from_millis(50);
    assert_eq!(at_peer.arrivals(|one| one.destination == old_address && one.at > late), []);
    // The old peer's address still has a permission, but no channel.
    let by_channel = |payload: &[u8]| payload.first_chunk() == Some(&CHANNEL.to_be_bytes());
    let from_old_peer = |payload: &[u8]| payload.get(4..).is_some_and(|data| data.starts_with(TO_CLIENT));
    let wrong =
        at_client.arrivals(|one| one.at > late && by_channel(&one.payload) && from_old_peer(&one.payload));
    assert_eq!(wrong, []);
    assert!(at_peer.arrivals_for(old_address).iter().all(|one| !one.payload.is_empty() && one.at < late));
    assert!(
        at_peer
            .arrivals_for(new_peer.local_addr().unwrap())
            .iter()
            .all(|one| one.payload.starts_with(TO_PEER))
    );
}

#[test]
fn an_allocation_that_expired_relays_nothing_after_one_lease() {
    let lifetime = Duration::from_secs(4);
    let offload = options().coturn(&["--max-allocate-lifetime=4"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let allocated = Instant::now();
    let peer = offload.peer();
    let [at_client, at_peer] = observers(&offload);
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    offload.wait_until_unbound(&client, CHANNEL);
    let end = allocated + lifetime + COTURN + LEASE;
    sleep(end.saturating_duration_since(Instant::now()) + Duration::from_millis(500));
    for (observer, destination) in
        [(&at_client, client.address().unwrap()), (&at_peer, peer.local_addr().unwrap())]
    {
        let last = observer.last_for(destination).unwrap();
        assert!(last < end, "{:?}", last - allocated);
        assert!(last > allocated + Duration::from_secs(2), "{:?}", last - allocated);
    }
}
