//! Refresh (RFC 8656 section 8), and what ends an allocation before its time.

use std::time::Duration;

use turn_snoop::{Refusal, Revocation};

use crate::lab::*;
use crate::message::*;

fn refresh(id: Id) -> Message {
    Message::new(REFRESH_REQUEST, id).credentials()
}

fn refreshed(id: Id, lifetime: u32) -> Message {
    Message::new(REFRESH_SUCCESS, id).lifetime(lifetime).integrity()
}

#[test]
fn rf1_lifetime_0_ends_the_allocation() {
    let mut lab = Lab::bound();
    lab.request(&refresh(1).lifetime(0).integrity());
    assert_eq!(lab.commands(), [], "the request alone ends nothing");
    lab.response(&refreshed(1, 0));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::RefreshedToZero), forget()]);
}

#[test]
fn rf1_lifetime_0_needs_no_request() {
    let mut lab = Lab::bound();
    lab.response(&refreshed(1, 0));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::RefreshedToZero), forget()]);
}

#[test]
fn rf1_success_is_a_new_deadline_by_the_response() {
    let mut lab = Lab::bound();
    lab.pass(Duration::from_secs(300));
    lab.request(&refresh(1).lifetime(10).integrity());
    lab.response(&refreshed(1, 600));
    lab.pass(Duration::from_secs(601));
    assert_eq!(lab.commands(), []);
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
}

#[test]
fn a23_refresh_never_creates() {
    let mut lab = Lab::new();
    lab.request(&refresh(1).lifetime(600));
    lab.assert_refused(Refusal::NoAllocation);
    lab.response(&refreshed(1, 600));
    lab.assert_refused(Refusal::NoAllocation);
    assert_eq!(lab.snoop.allocation_count(), 0);
}

#[test]
fn a23_replayed_success_never_extends() {
    let mut lab = Lab::bound();
    lab.request(&refresh(1).lifetime(600));
    lab.response(&refreshed(1, 600));
    lab.pass(Duration::from_secs(50));
    lab.response(&refreshed(1, 600));
    lab.assert_refused(Refusal::CompletedTransaction);
    lab.pass(Duration::from_secs(552));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
}

#[test]
fn rf2_family_of_the_request_ends_alone() {
    let mut lab = Lab::dual();
    lab.bind(1, 0x4000, PEER);
    lab.bind(2, 0x4001, PEER_V6);
    lab.request(&refresh(3).lifetime(0).family(2).integrity());
    lab.response(&refreshed(3, 0));
    assert_eq!(lab.commands(), [unbind(0x4001, PEER_V6, Revocation::RefreshedToZero)]);

    lab.response(&refreshed(3, 0));
    assert_eq!(lab.commands(), [], "the same response again ends no more");
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
    lab.request(&channel_bind(4, 0x4001, PEER_V6));
    lab.response(&channel_bound(4));
    lab.assert_refused(Refusal::NoRelayedAddressOfFamily);
}

#[test]
fn rf2_unknown_or_ambiguous_family_ends_both() {
    let family = |id, family| refresh(id).lifetime(0).family(family).integrity();
    let cases: [&[Message]; 4] = [
        &[],
        &[refresh(3).lifetime(0).integrity()],
        &[family(3, 1), family(3, 2)],
        &[refresh(3).lifetime(0).family(1).family(2).integrity()],
    ];
    for requests in cases {
        let mut lab = Lab::dual();
        lab.bind(1, 0x4000, PEER);
        lab.bind(2, 0x4001, PEER_V6);
        for request in requests {
            lab.request(request);
        }
        lab.response(&refreshed(3, 0));
        let zero = Revocation::RefreshedToZero;
        assert_eq!(lab.commands(), [unbind(0x4000, PEER, zero), unbind(0x4001, PEER_V6, zero), forget()]);
    }
}

#[test]
fn rf2_family_of_the_request_is_extended_alone() {
    let mut lab = Lab::dual();
    lab.bind(1, 0x4000, PEER);
    lab.bind(2, 0x4001, PEER_V6);
    lab.pass(Duration::from_secs(300));
    lab.request(&refresh(3).family(1).integrity());
    lab.response(&refreshed(3, 600));
    lab.pass(Duration::from_secs(302));
    assert_eq!(lab.commands(), [unbind(0x4001, PEER_V6, Revocation::Expired)]);
    lab.pass(Duration::from_secs(300));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
}

#[test]
fn rf2_unknown_family_extends_neither() {
    let mut lab = Lab::dual();
    lab.pass(Duration::from_secs(300));
    lab.response(&refreshed(3, 600));
    lab.assert_refused(Refusal::AmbiguousRefresh);
    lab.pass(Duration::from_secs(302));
    assert_eq!(lab.commands(), [forget()]);
}

#[test]
fn rf3_family_mismatch_changes_nothing() {
    let mut lab = Lab::bound();
    lab.request(&refresh(1).lifetime(0).family(2).integrity());
    lab.response(&Message::new(REFRESH_ERROR, 1).error(443));
    lab.assert_refused(Refusal::ServerRefused);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn x10_mismatch_ends_the_allocation() {
    for (request, error) in [
        (Some(refresh(1).integrity()), REFRESH_ERROR),
        (Some(channel_bind(1, 0x4001, OTHER_PEER)), CHANNEL_BIND_ERROR),
        (Some(Message::new(CREATE_PERMISSION_REQUEST, 1).peer(at(PEER))), CREATE_PERMISSION_ERROR),
        (None, CHANNEL_BIND_ERROR),
        (None, CREATE_PERMISSION_ERROR),
    ] {
        let mut lab = Lab::bound();
        if let Some(request) = request {
            lab.request(&request);
        }
        lab.response(&Message::new(error, 1).error(437));
        assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::AllocationMismatch), forget()]);
        assert_eq!(lab.snoop.allocation_count(), 0);
    }
}

#[test]
fn x10_mismatch_of_an_allocate_says_that_the_allocation_is_there() {
    let mut lab = Lab::bound();
    lab.response(&Message::new(ALLOCATE_ERROR, 1).error(437));
    lab.assert_refused(Refusal::ServerRefused);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn x12_other_errors_change_nothing() {
    for code in [300, 400, 401, 403, 420, 438, 440, 441, 442, 443, 486, 500, 508] {
        for error in [ALLOCATE_ERROR, REFRESH_ERROR, CREATE_PERMISSION_ERROR] {
            let mut lab = Lab::bound();
            lab.response(&Message::new(error, 1).error(code));
            lab.assert_refused(Refusal::ServerRefused);
            assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
        }
    }
}

#[test]
fn mb1_ticket_in_a_refresh_success_unbinds() {
    let mut lab = Lab::bound();
    lab.request(&refresh(1).integrity());
    lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(600).ticket().integrity());
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Mobility)]);
    assert_eq!((lab.snoop.allocation_count(), lab.snoop.binding_count()), (1, 0));
}

#[test]
fn mb2_refresh_success_on_a_new_5_tuple_creates_nothing() {
    let mut lab = Lab::bound();
    lab.response_to(OTHER_CLIENT, &Message::new(REFRESH_SUCCESS, 1).lifetime(600).ticket());
    lab.assert_refused(Refusal::NoAllocation);
    assert_eq!(lab.snoop.allocation_count(), 1);
}

#[test]
fn mb4_mismatch_of_a_refresh_with_ticket_says_nothing() {
    let mut lab = Lab::bound();
    lab.request(&refresh(1).ticket().integrity());
    lab.response(&Message::new(REFRESH_ERROR, 1).error(437));
    lab.assert_refused(Refusal::TicketMismatch);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn mb4_mismatch_of_a_refresh_that_may_have_had_a_ticket_says_nothing() {
    let mut lab = Lab::bound();
    lab.response(&Message::new(REFRESH_ERROR, 1).error(437));
    lab.assert_refused(Refusal::UnknownTransaction);
    lab.request(&refresh(2).integrity());
    lab.request(&refresh(2).ticket().integrity());
    assert_eq!(lab.refused(), [Refusal::ContradictedTransaction]);
    lab.response(&Message::new(REFRESH_ERROR, 2).error(437));
    lab.assert_refused(Refusal::UnknownTransaction);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}
