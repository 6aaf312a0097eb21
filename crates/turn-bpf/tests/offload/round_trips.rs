//! Client to peer and back, in both topologies and both modes.

use std::time::Duration;

use turn_testkit::lab::Topology;
use turn_testkit::offload::{Offload, OffloadOptions};
use turn_testkit::traffic::{Channel, Traffic};

use crate::{CHANNEL, options};

/// Sends for some time, and checks that everything came back and by which way it went. Returns the share that the kernel relayed.
fn kernel_share(options: OffloadOptions, mode: &str, duration: Duration) -> f64 {
    let mut offload = options.mode(mode).start();
    let modes: Vec<_> =
        offload.daemon().status().unwrap().interfaces.into_iter().map(|one| one.mode).collect();
    assert!(modes.iter().all(|found| found == mode), "{modes:?}");
    let share = round_trips(&mut offload, duration);
    assert_eq!(offload.count("transmit_failed"), 0);
    share
}

fn round_trips(offload: &mut Offload, duration: Duration) -> f64 {
    let (mut client, relayed) = offload.allocated_client();
    let echo = offload.echo();
    let before = offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let traffic = Traffic { stream: 1, sizes: 32..=1200, rate: 2000, duration };
    let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!(report.verify(), Ok(()), "{session:?}\n{}", offload.log());

    assert_eq!((session.relayed, session.peer), (relayed, echo.address()));
    assert_eq!(session.server, client.server());
    let (to_peer, to_client) = (session.client_to_peer, session.peer_to_client);
    assert_eq!((to_peer.packets(), to_client.packets()), (before + report.sent, before + report.sent));
    let kernel = to_peer.kernel_packets + to_client.kernel_packets;
    kernel as f64 / (2 * (before + report.sent)) as f64
}

#[test]
fn two_interfaces_in_native_mode_with_default_terms() {
    let share = kernel_share(options().default_terms(), "native", Duration::from_secs(4));
    assert!(share >= 0.99, "{share}");
}

#[test]
fn two_interfaces_in_generic_mode() {
    let share = kernel_share(options(), "generic", Duration::from_secs(2));
    assert!(share >= 0.95, "{share}");
}

#[test]
fn one_interface_in_native_mode() {
    let share = kernel_share(options().topology(Topology::One), "native", Duration::from_secs(2));
    assert!(share >= 0.95, "{share}");
}

#[test]
fn one_interface_in_generic_mode() {
    let share = kernel_share(options().topology(Topology::One), "generic", Duration::from_secs(2));
    assert!(share >= 0.95, "{share}");
}

/// A virtual Ethernet link takes what XDP transmits only if its other end is prepared for it.
#[test]
fn a_link_that_does_not_take_frames_from_xdp_is_noticed() {
    for topology in [Topology::One, Topology::Two] {
        let mut offload = options().topology(topology).far_ends_without_program().mode("auto").start();
        let share = round_trips(&mut offload, Duration::from_secs(1));
        assert!(share >= 0.95, "{topology:?}: {share}");
        assert_eq!(offload.count("transmit_failed"), 0, "{topology:?}");
    }
}

/// The operator insists on native mode: then the server goes on as if there were no offload.
#[test]
fn a_link_that_does_not_take_frames_from_xdp_loses_none_in_native_mode() {
    for topology in [Topology::One, Topology::Two] {
        let mut offload = options().topology(topology).far_ends_without_program().start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        let traffic = Traffic { stream: 1, sizes: 32..=1200, rate: 1000, duration: Duration::from_secs(1) };
        for _ in 0..2 {
            let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
            let status = offload.daemon().status().unwrap();
            assert_eq!(report.verify(), Ok(()), "{topology:?}: {status:?}");
            // News of an interface make turn-bpf look at all of them again.
            offload.lab.server.run("ip", &["address", "replace", "198.18.7.7/32", "dev", "srv0"]).unwrap();
        }
    }
}
