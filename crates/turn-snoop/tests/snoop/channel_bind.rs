//! ChannelBind (RFC 8656 section 12).

use std::time::Duration;

use turn_snoop::{Limits, Refusal, Revocation};

use crate::lab::*;
use crate::message::*;

#[test]
fn cb1_success_makes_the_claim_a_binding() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    assert_eq!(lab.commands(), []);
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
    assert_eq!(lab.snoop.binding_count(), 1);
    lab.assert_nothing_refused();
}

#[test]
fn cb1_success_of_a_server_without_authentication_is_twenty_bytes() {
    let mut lab = Lab::allocated();
    lab.request(&Message::new(CHANNEL_BIND_REQUEST, 1).peer(at(PEER)).channel(0x4000));
    lab.response(&Message::new(CHANNEL_BIND_SUCCESS, 1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn cb2_ipv6_peer_is_read_with_the_transaction_id() {
    let mut lab = Lab::dual();
    lab.bind(7, 0x4001, PEER_V6);
}

#[test]
fn cb3_peer_of_a_family_without_relayed_address_is_refused() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER_V6));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::NoRelayedAddressOfFamily);
}

#[test]
fn cb4_channel_bound_to_another_peer_is_rebound() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Rebound), bind(0x4000, OTHER_PEER)]);
    assert_eq!(lab.snoop.binding_count(), 1);
}

#[test]
fn cb5_peer_bound_to_another_channel_is_rebound() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4001, PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Rebound), bind(0x4001, PEER)]);
}

#[test]
fn cb5_channels_that_change_places_unbind_both() {
    let mut lab = Lab::bound();
    lab.bind(1, 0x4001, OTHER_PEER);
    lab.request(&channel_bind(2, 0x4000, OTHER_PEER));
    lab.response(&channel_bound(2));
    let rebound = Revocation::Rebound;
    assert_eq!(
        lab.commands(),
        [unbind(0x4000, PEER, rebound), unbind(0x4001, OTHER_PEER, rebound), bind(0x4000, OTHER_PEER)]
    );
    assert_eq!(lab.snoop.binding_count(), 1);
}

#[test]
fn cb5_peer_that_lost_its_channel_is_free_for_another() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Rebound), bind(0x4000, OTHER_PEER)]);
    lab.bind(2, 0x4001, PEER);
    assert_eq!(lab.bindings(), [(0x4000, at(OTHER_PEER)), (0x4001, at(PEER))]);
}

#[test]
fn cb6_every_success_binds_again() {
    let mut lab = Lab::bound();
    for id in 1..10 {
        lab.pass(Duration::from_secs(30));
        lab.bind(id, 0x4000, PEER);
    }
    assert_eq!(lab.snoop.binding_count(), 1);
}

#[test]
fn cb8_channels_of_two_allocations_are_independent() {
    let mut lab = Lab::bound();
    lab.allocate(0xa1, OTHER_CLIENT, &[OTHER_RELAYED]);
    lab.request_bytes(OTHER_CLIENT, &channel_bind(1, 0x4000, PEER).bytes());
    lab.response_to(OTHER_CLIENT, &channel_bound(1));
    assert_eq!(lab.commands().len(), 1);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER)), (0x4000, at(PEER))]);
}

#[test]
fn cb12_channels_of_one_allocation_are_limited() {
    let mut lab = Lab::with_limits(Limits { channels_per_allocation: 2, ..Limits::default() });
    lab.allocate(0xa0, CLIENT, &[RELAYED]);
    lab.bind(1, 0x4000, PEER);
    lab.bind(2, 0x4001, OTHER_PEER);
    lab.request(&channel_bind(3, 0x4002, "203.0.113.3:5000"));
    lab.response(&channel_bound(3));
    lab.assert_refused(Refusal::TooManyChannels);
    lab.bind(4, 0x4001, OTHER_PEER);
}

#[test]
fn fr7_duplicates_are_not_learned() {
    let message = || Message::new(CHANNEL_BIND_REQUEST, 1);
    for request in [
        message().channel(0x4000).peer(at(PEER)).peer(at(OTHER_PEER)),
        message().channel(0x4000).peer(at(PEER)).peer(at(PEER)),
        message().channel(0x4000).channel(0x4001).peer(at(PEER)),
        message().channel(0x4000).channel(0x4000).peer(at(PEER)),
    ] {
        let mut lab = Lab::allocated();
        lab.request(&request.integrity());
        lab.assert_refused(Refusal::DuplicateAttribute);
        lab.response(&channel_bound(1));
        lab.assert_refused(Refusal::PoisonedTransaction);
    }
}

#[test]
fn fr10_unknown_required_attribute_is_not_learned() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&Message::new(CHANNEL_BIND_SUCCESS, 1).attribute(0x7abc, &[]));
    lab.assert_refused(Refusal::UnknownRequiredAttribute);

    let odd = Message::new(CHANNEL_BIND_REQUEST, 2).attribute(0x7abc, &[]).channel(0x4000).peer(at(PEER));
    lab.request(&odd);
    lab.assert_refused(Refusal::UnknownRequiredAttribute);
    lab.response(&channel_bound(2));
    lab.assert_refused(Refusal::PoisonedTransaction);
}

#[test]
fn fr11_unknown_optional_attribute_is_ignored() {
    let mut lab = Lab::allocated();
    let odd = Message::new(CHANNEL_BIND_REQUEST, 1).attribute(0xffff, &[1, 2, 3]);
    lab.request(&odd.channel(0x4000).peer(at(PEER)).integrity());
    lab.response(&Message::new(CHANNEL_BIND_SUCCESS, 1).attribute(0x8022, b"a server"));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn x15_attributes_of_every_authentication_are_allowed() {
    let mut lab = Lab::allocated();
    let request = Message::new(CHANNEL_BIND_REQUEST, 1).attribute(0x001e, &[9; 32]).attribute(0x0015, b"n");
    let request = request.attribute(0x001b, &[9; 40]).attribute(0x001d, &[0, 2, 0, 0]);
    lab.request(&request.channel(0x4000).peer(at(PEER)).integrity_sha256());
    lab.response(&Message::new(CHANNEL_BIND_SUCCESS, 1).integrity_sha256());
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn fr14_channel_numbers_have_top_bits_01() {
    for (channel, is_learned) in [
        (0x3fff, false),
        (0x4000, true),
        (0x4fff, true),
        (0x5000, true),
        (0x7ffe, true),
        (0x7fff, true),
        (0x8000, false),
        (0xffff, false),
    ] {
        let mut lab = Lab::allocated();
        lab.request(&channel_bind(1, channel, PEER));
        if !is_learned {
            lab.assert_refused(Refusal::ChannelNumberOutOfRange);
        }
        lab.response(&channel_bound(1));
        assert_eq!(lab.commands().len(), usize::from(is_learned), "{channel:#x}");
    }
}

#[test]
fn x9_error_spends_the_claim_and_touches_nothing_live() {
    for code in [401, 403, 438, 441, 443, 508] {
        let mut lab = Lab::bound();
        lab.request(&channel_bind(1, 0x4000, PEER));
        lab.response(&Message::new(CHANNEL_BIND_ERROR, 1).error(code));
        lab.assert_refused(Refusal::ServerRefused);
        lab.response(&channel_bound(1));
        lab.assert_refused(Refusal::CompletedTransaction);
        assert_eq!(lab.bindings(), [(0x4000, at(PEER))], "{code}");
    }
}

#[test]
fn x11_bad_request_for_a_live_binding_unbinds_it() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&Message::new(CHANNEL_BIND_ERROR, 1).error(400));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Contradicted)]);
}

#[test]
fn x11_bad_request_for_another_pair_keeps_the_binding() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    lab.response(&Message::new(CHANNEL_BIND_ERROR, 1).error(400));
    lab.assert_refused(Refusal::ServerRefused);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}
