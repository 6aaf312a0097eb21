//! Client and peer are of one address family or of two.

use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::wait_until;

use crate::calls::{load, talk_in_kernel};
use crate::wires::{Wires, assert_carried};
use crate::{CHANNEL, FAMILY_PAIRS, options};

/// Both directions of each pair of families; on no wire is there a packet more or less than was sent, or a wrong checksum.
fn every_pair_of_families(topology: Topology, mode: &str) {
    let offload = options().topology(topology).mode(mode).start();
    for (client_family, peer_family) in FAMILY_PAIRS {
        let (mut client, relayed) = offload.allocated_client_of(client_family, peer_family);
        let echo = offload.echo_of(peer_family);
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let wires = Wires::of(&offload);
        let talk = talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));

        let (peer, session) = (echo.address(), &talk.session);
        assert_eq!((session.relayed, session.peer, session.server), (relayed, peer, client.server()));
        let datagrams = wires.datagrams();
        let (client, server) = (client.address().unwrap(), client.server());
        for ends in [(client, server), (relayed, peer), (peer, relayed), (server, client)] {
            assert_carried(&datagrams, ends, &talk);
        }
    }
    assert_eq!(offload.count("transmit_failed"), 0);
    assert_eq!(offload.count("malformed"), 0);
}

#[test]
fn every_pair_of_families_over_one_interface_in_native_mode() {
    every_pair_of_families(Topology::One, "native");
}

#[test]
fn every_pair_of_families_over_one_interface_in_generic_mode() {
    every_pair_of_families(Topology::One, "generic");
}

#[test]
fn every_pair_of_families_over_one_interface_at_tc() {
    every_pair_of_families(Topology::One, "tc");
}

#[test]
fn every_pair_of_families_over_two_interfaces_at_tc() {
    every_pair_of_families(Topology::Two, "tc");
}

#[test]
fn every_pair_of_families_over_two_interfaces_in_native_mode() {
    every_pair_of_families(Topology::Two, "native");
}

#[test]
fn every_pair_of_families_over_two_interfaces_in_generic_mode() {
    every_pair_of_families(Topology::Two, "generic");
}

const CHANNEL_V6: u16 = 0x4006;

fn channel_of(family: Family) -> u16 {
    if family == Family::V4 { CHANNEL } else { CHANNEL_V6 }
}

/// One 5-tuple with two relayed transport addresses (RFC 8656 sections 7.2 and 8.2).
#[test]
fn a_dual_allocation_is_relayed_in_both_families_and_ended_by_halves() {
    let offload = options().start();
    for client_family in [Family::V4, Family::V6] {
        for (ended, kept) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
            let mut client = offload.client_of(client_family);
            let relayed = client.allocate_dual().unwrap();
            assert!(relayed[0].is_ipv4() && relayed[1].is_ipv6());
            let families = [Family::V4, Family::V6];
            let echoes = families.map(|family| offload.echo_of(family));
            for (family, echo) in families.into_iter().zip(&echoes) {
                offload.bind_and_arm(&mut client, channel_of(family), echo);
            }
            for (family, relayed) in families.into_iter().zip(relayed) {
                let talk = talk_in_kernel(&offload, &mut client, channel_of(family), &load(1));
                assert_eq!(talk.session.relayed, relayed);
            }

            let [echo_v4, echo_v6] = echoes;
            let (_echo, nobody) = if kept == Family::V4 { (echo_v4, echo_v6) } else { (echo_v6, echo_v4) };
            drop(nobody);
            client.delete(ended).unwrap();
            offload.wait_until_unbound(&client, channel_of(ended));
            let kernel_packets = offload.kernel_packets();
            for _ in 0..5 {
                client.send_channel_data(channel_of(ended), b"for the server", &[]).unwrap();
            }
            let talk = talk_in_kernel(&offload, &mut client, channel_of(kept), &load(2));
            assert_eq!(offload.kernel_packets() - kernel_packets, talk.kernel);
            client.refresh(0).unwrap();
            wait_until("all is over", || offload.sessions().is_empty());
        }
    }
}
