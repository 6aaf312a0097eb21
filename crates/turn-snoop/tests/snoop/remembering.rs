//! What one snoop tells the next.

use std::collections::HashSet;
use std::time::Duration;

use turn_snoop::{Allocation, AllocationMemory, Limits, Refusal, Revocation, Snoop};

use crate::lab::*;
use crate::message::*;

fn memories(snoop: &Snoop) -> Vec<AllocationMemory> {
    let mut memories: Vec<_> = snoop.allocations().map(Allocation::memory).collect();
    memories.sort_by_key(|memory| (memory.made, memory.five_tuple));
    memories
}

/// Puts another snoop in the place of the lab's, at the same time.
fn replace(lab: &mut Lab) {
    let memories = memories(&lab.snoop);
    let mut next = Lab::new();
    next.now = lab.now;
    for memory in memories.clone() {
        assert!(next.snoop.remember(memory.clone()));
        assert!(!next.snoop.remember(memory), "it is known");
    }
    assert_eq!(next.snoop.binding_count(), lab.snoop.binding_count());
    assert_eq!(self::memories(&next.snoop), memories);
    *lab = next;
    assert_eq!(lab.commands(), [], "what is known already is not announced");
}

#[test]
fn a_binding_is_renewed_and_revoked_as_before() {
    let mut lab = Lab::bound();
    replace(&mut lab);
    lab.bind(0xb1, 0x4000, PEER);
    lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(0).integrity());
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::RefreshedToZero), forget()]);
}

#[test]
fn an_allocation_expires_when_it_would_have_expired() {
    let mut lab = Lab::bound();
    lab.pass(Duration::from_secs(300));
    replace(&mut lab);
    lab.pass(Duration::from_secs(301));
    assert_eq!(lab.commands(), []);
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
}

#[test]
fn both_families_of_one_allocation_are_remembered() {
    let mut lab = Lab::dual();
    lab.bind(0xb0, 0x4000, PEER);
    lab.bind(0xb1, 0x4001, PEER_V6);
    replace(&mut lab);
    lab.bind(0xb2, 0x4001, PEER_V6);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER)), (0x4001, at(PEER_V6))]);
}

#[test]
fn a_request_that_was_heard_before_is_not_answered_after() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(0xb0, 0x4000, PEER));
    assert!(lab.snoop.awaits_answers(lab.now), "so that there is reason to wait");
    assert!(!lab.snoop.awaits_answers(lab.now + Duration::from_secs(5)));
    replace(&mut lab);
    assert!(!lab.snoop.awaits_answers(lab.now));
    lab.response(&channel_bound(0xb0));
    lab.assert_refused(Refusal::UnknownTransaction);
}

#[test]
fn an_allocation_that_is_made_again_is_the_same_only_with_the_same_id() {
    for (id, commands) in [(0xa0, 0), (0xa1, 1)] {
        let mut lab = Lab::bound();
        replace(&mut lab);
        lab.response_to(CLIENT, &allocated(id, CLIENT, &[RELAYED]));
        assert_eq!(lab.commands().len(), commands, "{id:#x}");
    }
}

#[test]
fn whatever_changes_is_told_once() {
    let of_client = HashSet::from([five_tuple(CLIENT)]);
    let mut lab = Lab::allocated();
    assert_eq!(lab.snoop.take_changed(), of_client);
    assert_eq!(lab.snoop.take_changed(), HashSet::new());
    lab.bind(0xb0, 0x4000, PEER);
    assert_eq!(lab.snoop.take_changed(), of_client, "a binding");
    lab.request(&Message::new(REFRESH_REQUEST, 1).lifetime(600).integrity());
    assert_eq!(lab.snoop.take_changed(), HashSet::new(), "a claim");
    lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(600).integrity());
    assert_eq!(lab.snoop.take_changed(), of_client, "a deadline");
    lab.pass(Duration::from_secs(603));
    assert_eq!(lab.snoop.take_changed(), of_client, "an end");
}

#[test]
fn there_is_room_for_so_many() {
    let mut lab = Lab::bound();
    lab.allocate(0xa2, OTHER_CLIENT, &[OTHER_RELAYED]);
    let mut next = Snoop::new(Limits { allocations: 1, ..Limits::default() });
    let remembered: Vec<_> = memories(&lab.snoop).into_iter().map(|memory| next.remember(memory)).collect();
    assert_eq!(remembered, [true, false]);
}
