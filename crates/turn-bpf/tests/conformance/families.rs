//! IPv4 and IPv6 where the server decides between them (RFC 8656 sections 7.2 and 12.2).

use turn_testkit::lab::Family;

use crate::{CHANNEL, options};

/// The family is the server's choice, and its answer alone says which it is.
#[test]
fn al11_without_a_requested_family_the_answer_decides() {
    let offload = options().default_terms().start();
    for client_family in [Family::V4, Family::V6] {
        let mut client = offload.client_of(client_family);
        let relayed = client.allocate(None, None).unwrap().relayed;
        let family = if relayed.is_ipv4() { Family::V4 } else { Family::V6 };
        offload.bind_and_arm(&mut client, CHANNEL, &offload.echo_of(family));
        assert_eq!(offload.session(&client, CHANNEL).unwrap().relayed, relayed);
    }
}

#[test]
fn v6_2_a_peer_of_the_other_family_is_the_servers_to_refuse() {
    let offload = options().default_terms().start();
    for (relay_family, peer_family) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let (mut client, _) = offload.allocated_client_of(Family::V4, relay_family);
        let peer = offload.peer_of(peer_family);
        let refused = client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.code(), Some(443));
        // The server's answer to something later.
        client.refresh(600).unwrap();
        assert_eq!(offload.session(&client, CHANNEL), None);
    }
}
