//! Requests whose answers say less, or other things, than one might read into them.

use std::time::Duration;

use turn_snoop::{Command, Refusal};

use crate::lab::*;
use crate::message::*;

const OTHER_SERVER: &str = "192.0.2.2:3478";

/// A client whose transaction ids can be guessed: the attacker was there first, under every one of them.
#[test]
fn a4_planted_claims_spoil_their_ids_and_nothing_else() {
    let mut lab = Lab::bound();
    for id in 1..=8 {
        lab.request(&channel_bind(id, 0x4001, ATTACKER));
    }
    for id in 1..=8 {
        lab.request(&channel_bind(id, 0x4001, OTHER_PEER));
        lab.response(&channel_bound(id));
    }
    assert_eq!(lab.commands(), []);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
    lab.refused();
    lab.bind(9, 0x4001, OTHER_PEER);
}

/// One client, one transaction id, two servers: what one of them grants the other one has not granted.
#[test]
fn a34_al1_listeners_have_transactions_and_channels_of_their_own() {
    let mut lab = Lab::allocated();
    lab.response_between(OTHER_SERVER, CLIENT, &allocated(0xa1, CLIENT, &["192.0.2.2:49160"]));
    assert_eq!(lab.snoop.allocation_count(), 2);
    let ask = |lab: &mut Lab, server: &str, peer: &str| {
        let request = channel_bind(1, 0x4000, peer).bytes();
        lab.snoop.handle_request(lab.now, at(CLIENT), at(server), &request);
    };
    ask(&mut lab, SERVER, PEER);
    ask(&mut lab, OTHER_SERVER, ATTACKER);
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::CompletedTransaction);
    lab.response_between(OTHER_SERVER, CLIENT, &channel_bound(1));
    let commands = lab.commands();
    let [Command::Bind(other)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(
        (other.five_tuple.server, other.channel, other.peer),
        (at(OTHER_SERVER), 0x4000, at(ATTACKER))
    );
    assert_eq!(lab.bindings(), [(0x4000, at(PEER)), (0x4000, at(ATTACKER))]);
}

/// Permissions are the server's alone: however many are asked for, by whomever, in whatever order (RFC 8656 section 10).
#[test]
fn a40_fr8_pm11_permissions_neither_bind_nor_prolong() {
    for is_granted in [true, false] {
        let mut lab = Lab::bound();
        for (id, peers) in [(1, &[PEER][..]), (2, &[OTHER_PEER, PEER]), (3, &[ATTACKER; 40]), (3, &[PEER])] {
            let request = Message::new(CREATE_PERMISSION_REQUEST, id);
            let request = peers.iter().fold(request, |request, peer| request.peer(at(peer)));
            lab.request(&request.credentials().integrity());
            lab.response(&match is_granted {
                true => Message::new(0x0108, id).integrity(),
                false => Message::new(CREATE_PERMISSION_ERROR, id).error(403),
            });
        }
        assert_eq!(lab.commands(), []);
        assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
        lab.pass(Duration::from_secs(3600));
        assert_eq!(lab.snoop.allocation_count(), 0, "the allocation's end is where it was");
    }
}

/// Of two families that a client asked for it got one, and learns why not the other (RFC 8656 section 7.2).
#[test]
fn v6_4_half_of_a_dual_allocation_is_an_allocation() {
    let mut lab = Lab::new();
    let address_error = [2, 0, 4, 40];
    lab.response(&allocated(1, CLIENT, &[RELAYED]).attribute(0x8001, &address_error));
    lab.assert_nothing_refused();
    lab.request(&channel_bind(2, 0x4000, PEER_V6));
    lab.response(&channel_bound(2));
    lab.assert_refused(Refusal::NoRelayedAddressOfFamily);
    lab.bind(3, 0x4000, PEER);
}

/// Requests and answers that are lost on the way change nothing on either side (RFC 8489 section 6.3.1).
#[test]
fn a30_what_was_lost_is_as_if_it_had_not_been_sent() {
    let mut lab = Lab::bound();
    // The request for deletion is lost behind the point where it was seen.
    lab.request(&Message::new(REFRESH_REQUEST, 1).lifetime(0).integrity());
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
    // The answer is lost behind the point where it was seen, and the client asks again.
    lab.request(&Message::new(REFRESH_REQUEST, 2).lifetime(0).integrity());
    lab.response(&Message::new(REFRESH_SUCCESS, 2).lifetime(0).integrity());
    assert_eq!((lab.commands().last(), lab.snoop.allocation_count()), (Some(&forget()), 0));
    lab.request(&Message::new(REFRESH_REQUEST, 2).lifetime(0).integrity());
    lab.response(&Message::new(REFRESH_ERROR, 2).error(437));
    assert_eq!(lab.commands(), []);
}
