//! The server ends, hangs, begins again, or says that an allocation is over.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turn_testkit::figures::Figures;
use turn_testkit::offload::{Offload, TO_CLIENT, TO_PEER, wait_until};
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::wire::Observer;

use crate::{CHANNEL, options};

/// A tick of the clock that leases use, and a busy machine.
const MARGIN: Duration = Duration::from_millis(150);
const LEASE: Duration = Duration::from_secs(1);

pub fn observers(offload: &Offload) -> [Observer; 2] {
    [(&offload.lab.client, "cli0"), (&offload.lab.peer, "peer0")]
        .map(|(namespace, interface)| Observer::start(namespace, interface).unwrap())
}

#[test]
fn a_killed_server_relays_nothing_after_one_lease() {
    for mode in ["native", "tc", "generic"] {
        let mut offload = options().mode(mode).start();
        let (mut client, relayed) = offload.allocated_client();
        let peer = offload.peer();
        let [at_client, at_peer] = observers(&offload);
        let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);

        let coturn = offload.take_coturn();
        let killed = Instant::now();
        coturn.kill().unwrap();
        sleep(LEASE + Duration::from_secs(1));
        let [client_address, peer_address] = [client.address().unwrap(), peer.local_addr().unwrap()];
        for (observer, destination) in [(&at_client, client_address), (&at_peer, peer_address)] {
            let last = observer.last_for(destination).unwrap();
            assert!(last < killed + LEASE + MARGIN, "{mode}: {:?} after the end", last - killed);
            Figures::of("server-killed").outlived(last.saturating_duration_since(killed)).report();
        }
        assert!(offload.session(&client, CHANNEL).is_none(), "its relay socket closed");
        drop(pumps);
    }
}

/// The new server gives the only relayed transport address there is to somebody else.
#[test]
fn a_restarted_server_owes_nothing_to_its_old_clients() {
    let mut offload = options().default_terms().coturn(&["--min-port=50000", "--max-port=50000"]).start();
    let (mut old, old_relayed) = offload.allocated_client();
    let peer = offload.peer();
    let peer_address = peer.local_addr().unwrap();
    let [at_client, at_peer] = observers(&offload);
    let _pumps = offload.steady(&mut old, CHANNEL, old_relayed, &peer);
    let old_address = old.address().unwrap();

    offload.take_coturn().kill().unwrap();
    offload.start_coturn();
    let (mut new, new_relayed) = offload.allocated_client();
    let allocated = Instant::now();
    assert_eq!(new_relayed, old_relayed);
    // The server may share the address among clients, but not the peer there.
    offload.wait_for_session(&old, CHANNEL, |session| session.state == "userspace");
    new.channel_bind(CHANNEL, peer_address).unwrap();
    offload.wait_until_unbound(&old, CHANNEL);
    let new_address = new.address().unwrap();
    offload.wait_for_session(&new, CHANNEL, |session| session.peer_to_client.kernel_packets > 100);

    // The old client goes on sending on its channel, and the peer to the relayed transport address.
    let late = allocated + MARGIN;
    assert_eq!(at_client.arrivals(|one| one.destination == old_address && one.at > late), []);
    assert_eq!(at_peer.arrivals(|one| one.payload.starts_with(TO_PEER) && one.at > late), []);
    let received = at_client.arrivals_for(new_address);
    assert!(received.iter().any(|one| one.payload.get(4..).is_some_and(|data| data.starts_with(TO_CLIENT))));

    new.send_channel_data(CHANNEL, b"from the new client", &[]).unwrap();
    wait_until("the new client is heard", || {
        at_peer.arrivals(|one| one.payload == b"from the new client").len() == 1
    });
}

/// A client that allocates again on the same socket, after a crash that it has noticed.
#[test]
fn a_restarted_server_offloads_the_same_client_again() {
    let mut offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    offload.take_coturn().kill().unwrap();
    offload.start_coturn();
    assert_eq!(client.refresh(600).unwrap_err().code(), Some(437));
    offload.wait_until_unbound(&client, CHANNEL);

    let began = Instant::now();
    let relayed = client.allocate(None, None).unwrap().relayed;
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    Figures::of("server-restarted").healed(began.elapsed()).report();
    let traffic = Traffic { stream: 1, sizes: 100..=200, rate: 1000, duration: Duration::from_millis(500) };
    let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((session.relayed, session.state.as_str()), (relayed, "kernel"));
}

/// coturn itself relays for about another second; the kernel does not.
#[test]
fn a_refresh_to_zero_stops_the_kernel_at_once() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let [at_client, at_peer] = observers(&offload);
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);

    client.drain().unwrap();
    client.refresh(0).unwrap();
    let refreshed = Instant::now();
    offload.wait_until_unbound(&client, CHANNEL);
    assert!(refreshed.elapsed() < Duration::from_millis(500), "{:?}", refreshed.elapsed());
    let kernel_packets = offload.kernel_packets();
    sleep(Duration::from_secs(3));
    assert_eq!(offload.kernel_packets(), kernel_packets);
    for (observer, destination) in
        [(&at_client, client.address().unwrap()), (&at_peer, peer.local_addr().unwrap())]
    {
        let last = observer.last_for(destination).unwrap();
        assert!(last < refreshed + Duration::from_millis(2500), "{:?}", last - refreshed);
    }
}

#[test]
fn a_server_that_hangs_is_waited_for_and_heals() {
    let mut offload = options().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let [_, at_peer] = observers(&offload);
    let peer_address = peer.local_addr().unwrap();
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);

    offload.coturn().process().signal(Signal::STOP).unwrap();
    let stopped = Instant::now();
    offload.wait_for_session(&client, CHANNEL, |session| session.state == "userspace");
    sleep(Duration::from_millis(500));
    let last = at_peer.last_for(peer_address).unwrap();
    assert!(last < stopped + LEASE + MARGIN, "{:?}", last - stopped);

    offload.coturn().process().signal(Signal::CONT).unwrap();
    let woken = Instant::now();
    let session = offload.wait_for_session(&client, CHANNEL, |session| session.state == "kernel");
    let outlived = last.saturating_duration_since(stopped);
    Figures::of("server-hangs").outlived(outlived).healed(woken.elapsed()).report();
    offload.wait_for_session(&client, CHANNEL, |now| {
        now.client_to_peer.kernel_packets > session.client_to_peer.kernel_packets + 100
            && now.peer_to_client.kernel_packets > session.peer_to_client.kernel_packets + 100
    });
    let mut payloads: Vec<_> =
        at_peer.arrivals_for(peer_address).into_iter().map(|one| one.payload).collect();
    payloads.retain(|payload| payload.starts_with(TO_PEER));
    let all = payloads.len();
    payloads.sort();
    payloads.dedup();
    assert_eq!(payloads.len(), all, "no packet came twice");
}

/// The counters begin anew only with a new binding, and no packet goes to the server because of the renewal.
#[test]
fn a_renewed_binding_stays_in_the_kernel() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    let before = offload.session(&client, CHANNEL).unwrap();
    let no_lease = offload.count("no_lease");
    for _ in 0..5 {
        client.drain().unwrap();
        client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
        let session = offload.session(&client, CHANNEL).unwrap();
        assert_eq!(session.state, "kernel");
    }
    let after = offload.session(&client, CHANNEL).unwrap();
    assert_eq!(offload.count("no_lease"), no_lease);
    assert!(after.client_to_peer.kernel_packets >= before.client_to_peer.kernel_packets);
    assert!(after.peer_to_client.kernel_packets >= before.peer_to_client.kernel_packets);
    assert!(after.client_to_peer.spilled_packets <= before.client_to_peer.spilled_packets + 1);
}
