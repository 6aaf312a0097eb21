//! Requests and responses are joined by 5-tuple, method and transaction id (RFC 8489 section 5).

use std::time::Duration;

use turn_snoop::{Limits, Refusal};

use crate::lab::*;
use crate::message::*;

#[test]
fn x1_response_of_another_transaction_binds_nothing() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(0));
    lab.assert_refused(Refusal::UnknownTransaction);
}

#[test]
fn x1_response_of_another_method_binds_nothing() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(600));
    lab.response(&Message::new(0x0108, 1));
    assert_eq!(lab.commands(), []);
}

#[test]
fn x2_response_must_come_from_where_the_request_went_to() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response_between("192.0.2.9:3478", CLIENT, &channel_bound(1));
    lab.assert_refused(Refusal::NoAllocation);
    lab.response_between(SERVER, OTHER_CLIENT, &channel_bound(1));
    lab.assert_refused(Refusal::NoAllocation);
}

#[test]
fn x3_retransmission_is_one_claim() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
    lab.assert_nothing_refused();
}

#[test]
fn x3_retransmission_counter_is_no_other_content() {
    let mut lab = Lab::allocated();
    for count in 1..4 {
        let request = Message::new(CHANNEL_BIND_REQUEST, 1).channel(0x4000).peer(at(PEER));
        lab.request(&request.attribute(0x8025, &[0, 0, count, 0]).integrity());
    }
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn x3_retransmission_after_the_success_changes_nothing() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(0xb0, 0x4000, PEER));
    lab.assert_nothing_refused();
    lab.response(&channel_bound(0xb0));
    lab.assert_refused(Refusal::CompletedTransaction);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn x3_late_retransmission_can_still_be_answered() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.pass(Duration::from_secs(15));
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn a10_claim_is_pending_for_five_seconds_only() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.pass(Duration::from_secs(5));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::LateResponse);
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::CompletedTransaction);
}

#[test]
fn x7_responses_may_come_out_of_order() {
    let mut lab = Lab::allocated();
    let peer = |id: u8| format!("203.0.113.{id}:5000");
    for id in 1..=10 {
        lab.request(&channel_bind(id, 0x4000 + u16::from(id), &peer(id)));
    }
    for id in (1..=10).rev() {
        lab.response(&channel_bound(id));
        assert_eq!(lab.commands(), [bind(0x4000 + u16::from(id), &peer(id))]);
    }
}

#[test]
fn a17_flood_of_claims_displaces_none() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(0, 0x4000, PEER));
    for id in 1..=15 {
        lab.request(&channel_bind(id, 0x4100, ATTACKER));
    }
    lab.assert_nothing_refused();
    for id in 16..=100 {
        lab.request(&channel_bind(id, 0x4100, ATTACKER));
        lab.assert_refused(Refusal::TooManyPending);
    }
    lab.response(&channel_bound(0));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn a17_claim_without_room_can_be_made_again_and_not_be_replaced() {
    let limits = Limits { pending_per_allocation: 1, ..Limits::default() };
    let mut lab = Lab::with_limits(limits);
    lab.allocate(0xa0, CLIENT, &[RELAYED]);
    lab.request(&channel_bind(0, 0x4100, ATTACKER));
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.request(&channel_bind(2, 0x4001, OTHER_PEER));
    assert_eq!(lab.refused(), [Refusal::TooManyPending; 2]);

    lab.pass(Duration::from_secs(5));
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.assert_refused(Refusal::ContradictedTransaction);
    lab.request(&channel_bind(2, 0x4001, OTHER_PEER));
    lab.response(&channel_bound(1));
    lab.response(&channel_bound(2));
    assert_eq!(lab.commands(), [bind(0x4001, OTHER_PEER)]);
}

#[test]
fn a17_flood_beyond_memory_blinds_for_as_long_as_it_would_be_remembered() {
    let limits = Limits { transactions_per_allocation: 4, ..Limits::default() };
    let mut lab = Lab::with_limits(limits);
    lab.allocate(0xa0, CLIENT, &[RELAYED]);
    for id in 0..4 {
        lab.request(&channel_bind(id, 0x4100, ATTACKER));
    }
    lab.pass(Duration::from_secs(30));
    lab.request(&channel_bind(9, 0x4000, PEER));
    lab.assert_refused(Refusal::TooManyTransactions);

    // The four are forgotten; what would take the place of the one that was not recorded is not believed.
    lab.pass(Duration::from_secs(30));
    lab.request(&channel_bind(9, 0x4000, ATTACKER));
    lab.assert_refused(Refusal::TooManyTransactions);
    lab.response(&channel_bound(9));
    lab.assert_refused(Refusal::PoisonedTransaction);

    lab.pass(Duration::from_secs(30));
    lab.bind(10, 0x4000, PEER);
}

#[test]
fn transactions_are_forgotten_after_a_minute_of_silence() {
    let mut lab = Lab::bound();
    let allocation_alone = Lab::allocated().snoop.poll_timeout();
    assert_eq!(lab.snoop.poll_timeout(), Some(lab.now + Duration::from_secs(60)));
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.snoop.poll_timeout(), allocation_alone);
}
