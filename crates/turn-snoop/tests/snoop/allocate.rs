//! Allocate (RFC 8656 section 7).

use std::time::Duration;

use turn_snoop::{ChannelBinding, Command, Limits, Refusal, Revocation};

use crate::lab::*;
use crate::message::*;

#[test]
fn al4_success_alone_is_the_allocation() {
    let mut lab = Lab::new();
    lab.response(&allocated(1, CLIENT, &[RELAYED]).attribute(0x8022, b"a server").integrity().fingerprint(0));
    assert_eq!(lab.snoop.allocation_count(), 1);
    let allocation = lab.snoop.allocations().next().expect("one allocation");
    assert_eq!(allocation.five_tuple(), five_tuple(CLIENT));
    assert_eq!(allocation.relayed().collect::<Vec<_>>(), [at(RELAYED)]);
    assert!(!allocation.is_mobile());
    lab.assert_nothing_refused();
}

#[test]
fn al4_request_and_error_are_not() {
    let mut lab = Lab::new();
    lab.request(
        &Message::new(ALLOCATE_REQUEST, 1).attribute(0x0019, &[17, 0, 0, 0]).credentials().integrity(),
    );
    lab.response(&Message::new(ALLOCATE_ERROR, 1).error(486));
    lab.assert_refused(Refusal::ServerRefused);
    assert_eq!(lab.snoop.allocation_count(), 0);
}

#[test]
fn al4_incomplete_success_is_refused() {
    let message = || Message::new(ALLOCATE_SUCCESS, 1);
    let [client, relayed, relayed_v6] = [at(CLIENT), at(RELAYED), at(RELAYED_V6)];
    for (response, refusal) in [
        (message().mapped(client).relayed(relayed), Refusal::MissingAttribute),
        (message().mapped(client).lifetime(600), Refusal::MissingAttribute),
        (message().relayed(relayed).lifetime(600), Refusal::MissingAttribute),
        (message().mapped(client).relayed(relayed).lifetime(600).lifetime(600), Refusal::DuplicateAttribute),
        (message().mapped(client).mapped(client).relayed(relayed).lifetime(600), Refusal::DuplicateAttribute),
        (message().mapped(client).relayed(relayed).lifetime(0), Refusal::NoLifetime),
        (
            message().mapped(client).relayed(relayed).relayed(at(OTHER_RELAYED)).lifetime(600),
            Refusal::TooManyRelayedAddresses,
        ),
        (
            message().mapped(client).relayed(relayed).relayed(relayed_v6).relayed(relayed_v6).lifetime(600),
            Refusal::TooManyRelayedAddresses,
        ),
        (message().mapped(client).relayed(at("0.0.0.0:49160")).lifetime(600), Refusal::BadRelayedAddress),
        (message().mapped(client).relayed(at("192.0.2.1:0")).lifetime(600), Refusal::BadRelayedAddress),
        (message().mapped(client).relayed(relayed).attribute(0x000d, &[0; 5]), Refusal::BadAttributeValue),
        (
            message().mapped(client).relayed(relayed).lifetime(600).attribute(0x7abc, &[]),
            Refusal::UnknownRequiredAttribute,
        ),
        (message().integrity().mapped(client).relayed(relayed).lifetime(600), Refusal::MissingAttribute),
    ] {
        let mut lab = Lab::new();
        lab.response(&response);
        lab.assert_refused(refusal);
        assert_eq!(lab.snoop.allocation_count(), 0);
    }
}

#[test]
fn al6_mapped_address_may_be_another_behind_address_translation() {
    let mut lab = Lab::new();
    lab.response(&allocated(1, OTHER_CLIENT, &[RELAYED]));
    lab.assert_nothing_refused();
    lab.bind(2, 0x4000, PEER);
}

#[test]
fn al5_new_transaction_on_a_live_5_tuple_voids_the_older_allocation() {
    let mut lab = Lab::bound();
    lab.response(&allocated(0xa1, CLIENT, &[OTHER_RELAYED]));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::ReplacedAllocation)]);
    assert_eq!(lab.snoop.allocation_count(), 1);
    assert_eq!(lab.snoop.binding_count(), 0);
}

#[test]
fn al5_unacceptable_success_voids_the_older_allocation_too() {
    let mut lab = Lab::bound();
    lab.response(&Message::new(ALLOCATE_SUCCESS, 0xa1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::ReplacedAllocation), forget()]);
    assert_eq!(lab.refused(), [Refusal::MissingAttribute]);
}

#[test]
fn x4_retransmitted_success_never_extends() {
    let mut lab = Lab::bound();
    lab.pass(Duration::from_secs(100));
    lab.response(&allocated(0xa0, CLIENT, &[RELAYED]));
    lab.pass(Duration::from_secs(502));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
}

#[test]
fn x4_retransmitted_success_may_shorten() {
    let mut lab = Lab::bound();
    let remaining = Message::new(ALLOCATE_SUCCESS, 0xa0).mapped(at(CLIENT)).relayed(at(RELAYED)).lifetime(10);
    lab.response(&remaining);
    assert_eq!(lab.commands(), []);
    lab.pass(Duration::from_secs(12));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
}

#[test]
fn x4_same_transaction_with_another_relayed_address_is_another_allocation() {
    let mut lab = Lab::bound();
    lab.response(&allocated(0xa0, CLIENT, &[OTHER_RELAYED]));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::ReplacedAllocation)]);
}

/// Whether the older allocation is still there is for the server to show, since it may share the address among clients.
#[test]
fn a20_relayed_address_of_another_allocation_voids_that_one() {
    let mut lab = Lab::bound();
    lab.response_to(OTHER_CLIENT, &allocated(0xa1, OTHER_CLIENT, &[RELAYED]));
    assert_eq!(
        lab.commands(),
        [
            unbind(0x4000, PEER, Revocation::RelayedAddressReused),
            Command::BindDoubtful(binding(0x4000, PEER))
        ]
    );
    assert_eq!((lab.snoop.allocation_count(), lab.snoop.binding_count()), (2, 1));

    // Nothing has been heard of it since, so the next one puts it in doubt again.
    lab.response_to(THIRD_CLIENT, &allocated(0xa2, THIRD_CLIENT, &[RELAYED]));
    assert_eq!(lab.commands().len(), 2);
}

#[test]
fn a_relayed_address_that_is_shared_puts_nobody_in_doubt() {
    let signs: [&dyn Fn(&mut Lab); 3] = [
        &|lab| lab.response(&Message::new(CREATE_PERMISSION_SUCCESS, 1)),
        &|lab| lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(600)),
        &|lab| {
            lab.request(&channel_bind(0xb1, 0x4000, PEER));
            lab.response(&channel_bound(0xb1));
            assert_eq!(lab.commands(), [Command::BindDoubtful(binding(0x4000, PEER))]);
        },
    ];
    for sign in signs {
        let mut lab = Lab::bound();
        lab.response_to(OTHER_CLIENT, &allocated(0xa1, OTHER_CLIENT, &[RELAYED]));
        assert_eq!(lab.commands().len(), 2);
        sign(&mut lab);
        lab.response_to(THIRD_CLIENT, &allocated(0xa2, THIRD_CLIENT, &[RELAYED]));
        assert_eq!(lab.commands(), []);
        assert_eq!((lab.snoop.allocation_count(), lab.snoop.binding_count()), (3, 1));

        // As long as somebody has it, and no longer.
        for client in [CLIENT, OTHER_CLIENT, THIRD_CLIENT] {
            lab.response_to(client, &Message::new(REFRESH_SUCCESS, 2).lifetime(0));
        }
        assert_eq!(lab.snoop.allocation_count(), 0);
        let mut again = lab;
        again.commands();
        again.response(&allocated(0xa3, CLIENT, &[RELAYED]));
        again.request(&channel_bind(0xb3, 0x4000, PEER));
        again.response(&channel_bound(0xb3));
        again.commands();
        again.response_to(OTHER_CLIENT, &allocated(0xa4, OTHER_CLIENT, &[RELAYED]));
        assert_eq!(again.commands().len(), 2);
    }
}

/// What the peer sends to the address can be for one client only, and that is the one that the server has bound it for last.
#[test]
fn a_peer_at_a_relayed_address_is_of_one_client() {
    let mut lab = Lab::bound();
    lab.bind(0xb1, 0x4001, OTHER_PEER);
    lab.response_to(OTHER_CLIENT, &allocated(0xa1, OTHER_CLIENT, &[RELAYED]));
    lab.commands();
    lab.request_bytes(OTHER_CLIENT, &channel_bind(0xb2, 0x4002, PEER).bytes());
    lab.response_to(OTHER_CLIENT, &channel_bound(0xb2));
    let of_other = ChannelBinding { five_tuple: five_tuple(OTHER_CLIENT), ..binding(0x4002, PEER) };
    assert_eq!(
        lab.commands(),
        [unbind(0x4000, PEER, Revocation::RelayedAddressReused), Command::BindDoubtful(of_other)]
    );
    assert_eq!(lab.bindings(), [(0x4001, at(OTHER_PEER)), (0x4002, at(PEER))]);
}

#[test]
fn al7_allocation_ends_with_its_lifetime_and_a_grace() {
    let mut lab = Lab::bound();
    lab.pass(Duration::from_secs(601));
    assert_eq!(lab.commands(), []);
    assert_eq!(lab.snoop.poll_timeout(), Some(lab.now + Duration::from_secs(1)));
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
    assert_eq!(lab.snoop.poll_timeout(), None);
    assert_eq!((lab.snoop.allocation_count(), lab.snoop.binding_count()), (0, 0));
}

#[test]
fn al7_expiry_does_not_wait_for_the_timer() {
    let mut lab = Lab::bound();
    lab.now += Duration::from_secs(602);
    lab.request(&Message::new(REFRESH_REQUEST, 1).lifetime(600));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Expired), forget()]);
    assert_eq!(lab.refused(), [Refusal::NoAllocation]);
}

#[test]
fn al7_lifetime_is_clamped_to_a_day() {
    let mut lab = Lab::new();
    let success = Message::new(ALLOCATE_SUCCESS, 1).mapped(at(CLIENT)).relayed(at(RELAYED));
    lab.response(&success.lifetime(1_000_000_000));
    lab.pass(Duration::from_secs(24 * 3600 + 2));
    assert_eq!(lab.commands(), [forget()]);
}

#[test]
fn al10_two_families_have_two_relayed_addresses() {
    let mut lab = Lab::dual();
    lab.bind(1, 0x4000, PEER);
    lab.bind(2, 0x4001, PEER_V6);
    let allocation = lab.snoop.allocations().next().expect("one allocation");
    assert_eq!(allocation.relayed().count(), 2);
    assert_eq!(allocation.bindings().count(), 2);
}

#[test]
fn al17_rapid_creation_and_deletion_leaves_nothing() {
    let mut lab = Lab::new();
    for _ in 0..1000 {
        lab.allocate(1, CLIENT, &[RELAYED]);
        lab.request(&Message::new(REFRESH_REQUEST, 2).lifetime(0).integrity());
        lab.response(&Message::new(REFRESH_SUCCESS, 2).lifetime(0));
        assert_eq!(lab.commands(), [forget()]);
    }
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.snoop.poll_timeout(), None);
    assert_eq!(lab.snoop.allocation_count(), 0);
}

#[test]
fn allocations_are_limited_and_none_makes_room() {
    let mut lab = Lab::with_limits(Limits { allocations: 1, ..Limits::default() });
    lab.allocate(1, CLIENT, &[RELAYED]);
    lab.response_to(OTHER_CLIENT, &allocated(2, OTHER_CLIENT, &[OTHER_RELAYED]));
    lab.assert_refused(Refusal::TooManyAllocations);
    assert_eq!(lab.snoop.allocation_count(), 1);
    lab.response(&allocated(3, CLIENT, &[OTHER_RELAYED]));
    lab.assert_nothing_refused();
    assert_eq!(lab.snoop.allocation_count(), 1);
}

#[test]
fn mb1_ticket_in_the_allocate_success_leaves_the_allocation_to_the_server() {
    let mut lab = Lab::new();
    lab.response(&allocated(1, CLIENT, &[RELAYED]).ticket());
    assert!(lab.snoop.allocations().all(|allocation| allocation.is_mobile()));
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.assert_refused(Refusal::MobileAllocation);
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::MobileAllocation);
}

#[test]
fn i5_replaced_allocation_is_not_forgotten() {
    let mut lab = Lab::bound();
    lab.response(&allocated(0xa1, CLIENT, &[RELAYED]));
    assert!(lab.commands().iter().all(|command| !matches!(command, Command::Forget(_))));
    lab.bind(1, 0x4000, PEER);
}
