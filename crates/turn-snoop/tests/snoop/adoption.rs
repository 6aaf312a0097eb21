//! Clients that were there before anyone looked.

use std::time::Duration;

use turn_snoop::{ChannelBinding, Command, Refusal, Revocation};

use crate::lab::*;
use crate::message::*;

/// What is learned of a binding whose allocation was not seen.
fn adopted(channel: u16, peer: &str) -> ChannelBinding {
    ChannelBinding { relayed: None, ..binding(channel, peer) }
}

#[test]
fn a_granted_channel_bind_is_enough_to_know_an_allocation() {
    let mut lab = Lab::new();
    lab.request(&channel_bind(1, 0x4000, PEER));
    assert_eq!(lab.commands(), [], "a request is only a claim");
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [Command::Bind(adopted(0x4000, PEER))]);
    lab.assert_nothing_refused();

    // From here on it is like any other.
    lab.request(&channel_bind(2, 0x4001, PEER_V6));
    lab.response(&channel_bound(2));
    assert_eq!(lab.commands(), [Command::Bind(adopted(0x4001, PEER_V6))]);
    lab.request(&Message::new(REFRESH_REQUEST, 3).lifetime(0));
    lab.response(&Message::new(REFRESH_SUCCESS, 3).lifetime(0));
    let ended = [(0x4000, PEER), (0x4001, PEER_V6)]
        .map(|(channel, peer)| Command::Unbind(adopted(channel, peer), Revocation::RefreshedToZero));
    assert_eq!(lab.commands(), [ended[0], ended[1], forget()]);
}

#[test]
fn an_allocate_makes_it_an_allocation_that_is_known() {
    let mut lab = Lab::new();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    lab.commands();
    lab.response(&allocated(2, CLIENT, &[RELAYED]));
    assert_eq!(lab.commands(), [Command::Unbind(adopted(0x4000, PEER), Revocation::ReplacedAllocation)]);
    lab.bind(3, 0x4000, PEER);
}

#[test]
fn it_expires_after_an_hour_without_a_word_of_the_server() {
    let mut lab = Lab::new();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    lab.commands();
    lab.pass(Duration::from_secs(3600));
    assert_eq!(lab.commands(), []);
    lab.pass(Duration::from_secs(3));
    assert_eq!(lab.commands(), [Command::Unbind(adopted(0x4000, PEER), Revocation::Expired), forget()]);
}

#[test]
fn a1_a_request_alone_adopts_nothing() {
    let mut lab = Lab::new();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.response(&channel_bound(2));
    lab.assert_refused(Refusal::NoAllocation);
    assert_eq!(lab.snoop.allocation_count(), 0);
}

#[test]
fn a2_two_contents_adopt_nothing_in_either_order() {
    for (first, second) in [(PEER, ATTACKER), (ATTACKER, PEER)] {
        let mut lab = Lab::new();
        lab.request(&channel_bind(1, 0x4000, first));
        lab.request(&channel_bind(1, 0x4000, second));
        lab.refused();
        lab.response(&channel_bound(1));
        lab.assert_refused(Refusal::PoisonedTransaction);
        assert_eq!(lab.snoop.allocation_count(), 0);
    }
}

#[test]
fn a3_the_transaction_that_adopted_is_spent() {
    let mut lab = Lab::new();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    lab.commands();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.refused();
    lab.commands();
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), []);
    assert!(lab.bindings().iter().all(|(_, peer)| *peer != at(ATTACKER)));
}

#[test]
fn a17_strangers_take_no_more_room_than_is_theirs() {
    let mut lab = Lab::bound();
    for port in 1..=10_000u16 {
        lab.request_bytes(&format!("203.0.113.9:{port}"), &channel_bind(1, 0x4000, ATTACKER).bytes());
    }
    let refused = lab.refused();
    assert_eq!(refused.len(), 10_000 - 4096);
    assert!(refused.iter().all(|refusal| *refusal == Refusal::NoAllocation));

    // Clients that are known do not notice.
    lab.request(&channel_bind(2, 0x4001, OTHER_PEER));
    lab.response(&channel_bound(2));
    assert_eq!(lab.commands(), [bind(0x4001, OTHER_PEER)]);
    lab.pass(Duration::from_secs(61));
    lab.request_bytes("203.0.113.9:1", &channel_bind(3, 0x4000, ATTACKER).bytes());
    lab.assert_nothing_refused();
}

#[test]
fn rf1_a_refresh_adopts_nothing() {
    let mut lab = Lab::new();
    lab.request(&Message::new(REFRESH_REQUEST, 1).lifetime(600));
    lab.assert_refused(Refusal::NoAllocation);
    lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(600));
    lab.assert_refused(Refusal::NoAllocation);
}

/// Whoever sees an id of a request that is older than what is known of the allocation could ask for something else under it.
#[test]
fn a_request_before_the_allocation_is_not_forgotten() {
    let mut lab = Lab::new();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.allocate(0xa0, CLIENT, &[RELAYED]);
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::PoisonedTransaction);
    lab.bind(2, 0x4000, PEER);
}

/// The same, where the first request was made of an allocation that is over since.
#[test]
fn a_request_of_an_allocation_that_is_over_is_not_forgotten() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&Message::new(REFRESH_SUCCESS, 9).lifetime(0));
    assert_eq!(lab.commands(), [Command::Forget(five_tuple(CLIENT))]);
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::PoisonedTransaction);
    assert_eq!(lab.bindings(), []);
}
