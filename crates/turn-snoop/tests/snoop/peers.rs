//! Which addresses are never offloaded (RFC 8656 sections 21.2.2 and 21.4).

use turn_snoop::{Refusal, Revocation};

use crate::lab::*;

const FORBIDDEN: &[&str] = &[
    "127.0.0.1:5000",
    "127.255.255.254:5000",
    "0.0.0.0:5000",
    "0.1.2.3:5000",
    "224.0.0.1:5000",
    "239.255.255.250:1900",
    "255.255.255.255:5000",
    "169.254.169.254:80",
    "203.0.113.1:0",
    "[::1]:5000",
    "[::]:5000",
    "[ff02::1]:5000",
    "[fe80::1]:5000",
    "[febf::1]:5000",
    "[::ffff:203.0.113.1]:5000",
    "[::203.0.113.1]:5000",
    "[2001::1]:5000",
    "[2001:0:1234::1]:5000",
    "[2002:c000:0201::1]:5000",
    "[2001:db8::1]:0",
];

const ALLOWED: &[&str] = &[
    "10.1.2.3:5000",
    "100.64.0.1:5000",
    "192.168.1.1:1",
    "169.253.255.255:5000",
    "223.255.255.255:65535",
    "[2001:1::1]:5000",
    "[2003::1]:5000",
    "[fec0::1]:5000",
    "[fd00::1]:5000",
    "[64:ff9b::203.0.113.1]:5000",
];

#[test]
fn i8_addresses_of_special_kinds_are_not_bound() {
    for peer in FORBIDDEN {
        let mut lab = Lab::dual();
        lab.request(&channel_bind(1, 0x4000, peer));
        lab.response(&channel_bound(1));
        lab.assert_refused(Refusal::PeerNotAllowed);
    }
    for peer in ALLOWED {
        Lab::dual().bind(1, 0x4000, peer);
    }
}

#[test]
fn i8_clients_of_special_kinds_are_not_learned() {
    for client in FORBIDDEN {
        let mut lab = Lab::new();
        lab.response_to(client, &allocated(1, client, &[RELAYED]));
        lab.assert_refused(Refusal::ClientNotAllowed);
        assert_eq!(lab.snoop.allocation_count(), 0);
    }
}

#[test]
fn i8_refused_peer_still_displaces_what_the_server_replaced() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, "127.0.0.1:53"));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Rebound)]);
    assert_eq!(lab.refused(), [Refusal::PeerNotAllowed]);
}

#[test]
fn a15_this_host_is_no_peer() {
    let mut lab = Lab::allocated();
    lab.snoop.set_local_addresses([at(RELAYED).ip()]);
    for (id, peer) in [(1, SERVER), (2, RELAYED), (3, "192.0.2.1:22"), (4, OTHER_RELAYED)] {
        lab.request(&channel_bind(id, 0x4000, peer));
        lab.response(&channel_bound(id));
        lab.assert_refused(Refusal::PeerIsThisHost);
    }
}

#[test]
fn a15_own_relayed_address_and_listeners_are_no_peers_behind_translation() {
    let mut lab = Lab::allocated();
    for (id, peer) in [(1, SERVER), (2, RELAYED)] {
        lab.request(&channel_bind(id, 0x4000, peer));
        lab.response(&channel_bound(id));
        lab.assert_refused(Refusal::PeerIsThisHost);
    }
}

#[test]
fn sc10_relayed_address_of_another_allocation_is_a_peer() {
    let mut lab = Lab::allocated();
    lab.snoop.set_local_addresses([at(RELAYED).ip()]);
    lab.allocate(0xa1, OTHER_CLIENT, &[OTHER_RELAYED]);
    lab.bind(1, 0x4000, OTHER_RELAYED);
}

#[test]
fn a15_address_that_becomes_this_hosts_is_unbound() {
    let mut lab = Lab::bound();
    lab.bind(1, 0x4001, OTHER_PEER);
    lab.snoop.set_local_addresses([at(PEER).ip()]);
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::PeerNotAllowed)]);
    assert_eq!(lab.bindings(), [(0x4001, at(OTHER_PEER))]);
}

#[test]
fn sc8_client_on_this_host_is_not_learned() {
    let mut lab = Lab::new();
    lab.snoop.set_local_addresses([at(CLIENT).ip()]);
    lab.response(&allocated(1, CLIENT, &[RELAYED]));
    lab.assert_refused(Refusal::ClientNotAllowed);
}
