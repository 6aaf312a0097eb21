//! What an attacker may send, and that it is not learned from.
//!
//! The genuine binding is `0x4000` to `PEER`; what the attacker wants in its place is `ATTACKER`.

use std::time::Duration;

use turn_snoop::{Command, Refusal, Revocation};

use crate::lab::*;
use crate::message::*;

#[test]
fn a1_request_alone_binds_nothing() {
    let mut lab = Lab::allocated();
    for id in 0..10 {
        lab.request(&channel_bind(id, 0x4000, ATTACKER));
    }
    assert_eq!(lab.commands(), []);
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Forged,
    Genuine,
    Error,
    Success,
}

impl Step {
    fn take(self, lab: &mut Lab) {
        match self {
            Self::Forged => lab.request(&channel_bind(1, 0x4000, ATTACKER)),
            Self::Genuine => lab.request(&channel_bind(1, 0x4000, PEER)),
            Self::Error => lab.response(&Message::new(CHANNEL_BIND_ERROR, 1).error(401)),
            Self::Success => lab.response(&channel_bound(1)),
        }
    }
}

fn orders(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for (index, &first) in steps.iter().enumerate() {
        let mut others = steps.to_vec();
        others.remove(index);
        for mut rest in orders(&others) {
            rest.insert(0, first);
            all.push(rest);
        }
    }
    all
}

#[test]
fn a2_two_contents_under_one_transaction_poison_it_in_every_order() {
    let orders = orders(&[Step::Forged, Step::Genuine, Step::Error, Step::Success]);
    assert_eq!(orders.len(), 24);
    for order in orders {
        for pause in [0, 4, 14] {
            let mut lab = Lab::allocated();
            for step in &order {
                step.take(&mut lab);
                lab.pass(Duration::from_secs(pause));
            }
            assert!(lab.bindings().is_empty(), "{order:?}");
            let commands = lab.commands();
            let forged = order.iter().position(|&step| step == Step::Forged);
            let genuine = order.iter().position(|&step| step == Step::Genuine);
            let success = order.iter().position(|&step| step == Step::Success);
            if forged > success || genuine < success {
                // The success was never joined to the forged request, not even until the genuine one showed up.
                assert!(!commands.contains(&bind(0x4000, ATTACKER)), "{order:?}");
            }
            // The transaction stays spoilt, whatever is sent again.
            for step in &order {
                step.take(&mut lab);
                assert!(lab.bindings().is_empty(), "{order:?} then {step:?}");
            }
            assert_eq!(lab.commands(), []);
        }
    }
}

#[test]
fn a2_poison_lasts_a_minute_from_the_latest_message() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.request(&channel_bind(1, 0x4000, PEER));
    assert_eq!(lab.refused(), [Refusal::ContradictedTransaction]);
    lab.pass(Duration::from_secs(59));
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.assert_refused(Refusal::PoisonedTransaction);
    lab.pass(Duration::from_secs(59));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::PoisonedTransaction);
}

#[test]
fn a2_poisoned_success_unbinds_what_it_may_have_replaced() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    assert_eq!(lab.commands(), []);
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Contradicted)]);
}

#[test]
fn a2_content_that_comes_after_the_success_makes_the_binding_doubtful() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(0xb0, 0x4000, ATTACKER));
    assert_eq!(lab.commands(), [unbind(0x4000, PEER, Revocation::Contradicted)]);
    lab.response(&channel_bound(0xb0));
    assert_eq!(lab.commands(), []);
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.snoop.binding_count(), 0);
}

#[test]
fn a2_doubt_does_not_reach_a_binding_that_was_granted_again() {
    let mut lab = Lab::bound();
    lab.bind(1, 0x4000, PEER);
    lab.request(&channel_bind(0xb0, 0x4000, ATTACKER));
    lab.assert_refused(Refusal::ContradictedTransaction);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn a3_replayed_success_confirms_nothing_new() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(0xb0, 0x4001, ATTACKER));
    lab.response(&channel_bound(0xb0));
    assert!(!lab.commands().iter().any(|command| matches!(command, Command::Bind(_))));
}

#[test]
fn a3_spent_transaction_outlives_the_allocation() {
    let mut lab = Lab::bound();
    lab.response(&Message::new(REFRESH_SUCCESS, 1).lifetime(0));
    assert_eq!(lab.commands().len(), 2);
    lab.allocate(0xa1, CLIENT, &[OTHER_RELAYED]);
    lab.request(&channel_bind(0xb0, 0x4000, ATTACKER));
    lab.response(&channel_bound(0xb0));
    assert_eq!(lab.commands(), []);
}

#[test]
fn a4_content_planted_ahead_of_the_genuine_one_poisons() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.pass(Duration::from_secs(30));
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), []);
}

#[test]
fn a5_attributes_after_the_integrity_are_not_read() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER).channel(0x4001).peer(at(ATTACKER)));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);

    lab.request(&Message::new(CHANNEL_BIND_REQUEST, 2).integrity().channel(0x4001).peer(at(ATTACKER)));
    assert_eq!(lab.refused(), [Refusal::MissingAttribute]);
    lab.response(&channel_bound(2));
    lab.assert_refused(Refusal::PoisonedTransaction);
}

#[test]
fn a6_attributes_between_two_integrities_are_not_read() {
    let mut lab = Lab::allocated();
    let request = channel_bind(1, 0x4000, PEER).channel(0x4001).peer(at(ATTACKER)).integrity_sha256();
    lab.request(&request);
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn a7_request_that_only_a_lenient_server_accepts_spoils_its_id() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER).attribute(0x8022, b"").fingerprint(1));
    lab.assert_refused(Refusal::BadFingerprint);
    let two_peers = Message::new(CHANNEL_BIND_REQUEST, 2).channel(0x4000).peer(at(PEER)).peer(at(ATTACKER));
    lab.request(&two_peers);
    lab.assert_refused(Refusal::DuplicateAttribute);
    for id in [1, 2] {
        lab.request(&channel_bind(id, 0x4000, ATTACKER));
        lab.response(&channel_bound(id));
        assert_eq!(lab.refused(), [Refusal::PoisonedTransaction; 2]);
        assert_eq!(lab.commands(), []);
    }
}

#[test]
fn a8_odd_encodings_are_refused() {
    let request = || Message::new(CHANNEL_BIND_REQUEST, 1);
    let v4 = request().xor(at(PEER));
    let v6 = request().xor(at(PEER_V6));
    let with = |first: u8, rest: &[u8]| [&[0, first], rest].concat();
    for (peer, refusal) in [
        (with(1, &v6[2..]), Refusal::BadAttributeValue),
        (with(2, &v4[2..]), Refusal::BadAttributeValue),
        (with(0, &v4[2..]), Refusal::BadAttributeValue),
        (with(3, &v4[2..]), Refusal::BadAttributeValue),
        (v4[..7].to_vec(), Refusal::BadAttributeValue),
        (v4[..4].to_vec(), Refusal::BadAttributeValue),
        (vec![], Refusal::BadAttributeValue),
        ([&v4[..], &[0]].concat(), Refusal::BadAttributeValue),
        ([&v4[..], &[0; 4]].concat(), Refusal::BadAttributeValue),
    ] {
        let mut lab = Lab::dual();
        lab.request(&request().channel(0x4000).attribute(0x0012, &peer).integrity());
        lab.assert_refused(refusal);
        lab.response(&channel_bound(1));
        lab.assert_refused(Refusal::PoisonedTransaction);
    }
    for channel in [&[0x40, 0][..], &[0x40, 0, 0], &[0x40, 0, 0, 0, 0], &[]] {
        let mut lab = Lab::allocated();
        lab.request(&request().attribute(0x000c, channel).peer(at(PEER)).integrity());
        lab.assert_refused(Refusal::BadAttributeValue);
    }
}

#[test]
fn a8_bytes_that_are_to_be_ignored_are() {
    let mut lab = Lab::allocated();
    let request = Message::new(CHANNEL_BIND_REQUEST, 1);
    let mut peer = request.xor(at(PEER));
    peer[0] = 0xff;
    lab.request(&request.attribute(0x000c, &[0x40, 0, 0xff, 0xff]).attribute(0x0012, &peer).integrity());
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn a9_length_must_be_that_of_the_datagram() {
    let genuine = channel_bind(1, 0x4000, PEER).bytes();
    let trailing = [&genuine[..], &[0; 4]].concat();
    let truncated = genuine[..genuine.len() - 4].to_vec();
    let mut unaligned = [&genuine[..], &[0]].concat();
    unaligned[3] += 1;
    for bytes in [trailing, truncated, unaligned] {
        let mut lab = Lab::allocated();
        lab.request_bytes(CLIENT, &bytes);
        lab.assert_refused(Refusal::BadLength);
        lab.response(&channel_bound(1));
        lab.assert_refused(Refusal::PoisonedTransaction);
    }
}

#[test]
fn a10_unanswered_content_does_not_pass_for_a_later_one() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.pass(Duration::from_secs(5));
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::LateResponse);
}

#[test]
fn a11_responses_that_enter_the_host_mean_nothing() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4001, ATTACKER));
    for response in [
        channel_bound(1),
        Message::new(CHANNEL_BIND_ERROR, 1).error(437),
        Message::new(REFRESH_SUCCESS, 2).lifetime(0),
        allocated(3, CLIENT, &[OTHER_RELAYED]),
    ] {
        let bytes = response.bytes();
        lab.snoop.handle_request(lab.now, at(SERVER), at(CLIENT), &bytes);
        lab.assert_refused(Refusal::ResponseEntering);
        lab.snoop.handle_request(lab.now, at(CLIENT), at(SERVER), &bytes);
        lab.assert_refused(Refusal::ResponseEntering);
    }
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4001, ATTACKER)], "they have not spent the transaction either");
}

#[test]
fn a12_responses_from_a_relayed_address_are_not_the_servers() {
    let mut lab = Lab::allocated();
    // What the peer sees as the source may be another address of the host, with the same port.
    for source in [RELAYED, "10.0.0.1:49160"] {
        lab.response_between(source, ATTACKER, &allocated(1, ATTACKER, &[OTHER_RELAYED]));
        lab.assert_refused(Refusal::SourceIsRelayedAddress);
        lab.response_between(source, ATTACKER, &channel_bound(1));
        lab.assert_refused(Refusal::SourceIsRelayedAddress);
        lab.response_between(source, CLIENT, &Message::new(REFRESH_SUCCESS, 1).lifetime(0));
        lab.assert_refused(Refusal::NoAllocation);
    }
    assert_eq!(lab.snoop.allocation_count(), 1);
}

#[test]
fn a12_listener_is_no_relayed_address() {
    let mut lab = Lab::allocated();
    for relayed in [SERVER, "203.0.113.9:3478"] {
        lab.response_to(OTHER_CLIENT, &allocated(1, OTHER_CLIENT, &[relayed]));
        lab.assert_refused(Refusal::RelayedAddressIsListener);
    }
    let other_listener = "192.0.2.1:3479";
    lab.response_between(other_listener, OTHER_CLIENT, &allocated(2, OTHER_CLIENT, &[SERVER]));
    lab.assert_refused(Refusal::RelayedAddressIsListener);
    lab.response_between(other_listener, OTHER_CLIENT, &allocated(3, OTHER_CLIENT, &[OTHER_RELAYED]));
    assert_eq!(lab.snoop.allocation_count(), 2);
}

/// Of an allocation over TCP or TLS nothing is seen.
#[test]
fn a12_port_that_a_relayed_address_may_have_is_no_listeners() {
    let mut lab = Lab::new();
    for source in ["192.0.2.1:32768", "192.0.2.1:49170", "192.0.2.1:65535"] {
        lab.response_between(source, ATTACKER, &allocated(1, ATTACKER, &[OTHER_RELAYED]));
        lab.assert_refused(Refusal::SourceIsNoListener);
    }
    lab.response_between("192.0.2.1:32767", ATTACKER, &allocated(2, ATTACKER, &[OTHER_RELAYED]));
    assert_eq!(lab.snoop.allocation_count(), 1);

    let mut lab = Lab::new().listening_at(&[50_000]);
    lab.response_to(CLIENT, &allocated(1, CLIENT, &[RELAYED]));
    lab.assert_refused(Refusal::SourceIsNoListener);
    lab.response_between("192.0.2.1:50000", CLIENT, &allocated(2, CLIENT, &[RELAYED]));
    assert_eq!(lab.snoop.allocation_count(), 1);
}

#[test]
fn a12_port_is_a_listeners_again_when_its_allocation_is_over() {
    let mut lab = Lab::allocated().listening_at(&[3478, 49160]);
    let listener = "192.0.2.2:49160";
    let success = allocated(1, OTHER_CLIENT, &[OTHER_RELAYED]);
    lab.response_between(listener, OTHER_CLIENT, &success);
    lab.assert_refused(Refusal::SourceIsRelayedAddress);

    lab.response(&Message::new(REFRESH_SUCCESS, 2).lifetime(0));
    assert_eq!(lab.commands(), [forget()]);
    lab.response_between(listener, OTHER_CLIENT, &success);
    lab.assert_nothing_refused();
    assert_eq!(lab.snoop.allocation_count(), 1);
}

#[test]
fn a13_payload_that_looks_like_a_success_is_payload() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    let payload = channel_bound(1).bytes();
    lab.response(&Message::new(DATA_INDICATION, 9).peer(at(PEER)).attribute(0x0013, &payload));
    lab.assert_refused(Refusal::Indication);
    lab.snoop.handle_response(lab.now, at(SERVER), at(CLIENT), &[&[0x40, 0, 0, 20], &payload[..]].concat());
    lab.assert_refused(Refusal::NotStun);
}

#[test]
fn a19_requests_alone_demote_nothing() {
    let mut lab = Lab::bound();
    lab.request(&Message::new(REFRESH_REQUEST, 1).lifetime(0));
    lab.request(&Message::new(REFRESH_REQUEST, 2).ticket());
    lab.request(&channel_bind(3, 0x4000, ATTACKER));
    lab.request_bytes(CLIENT, b"garbage");
    assert_eq!(lab.commands(), []);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn a20_claims_die_with_their_allocation() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&Message::new(REFRESH_SUCCESS, 2).lifetime(0));
    assert_eq!(lab.commands(), [forget()]);
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::NoAllocation);
}

#[test]
fn a20_claims_on_an_address_that_is_granted_anew_are_for_the_server_to_prove() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response_to(OTHER_CLIENT, &allocated(2, OTHER_CLIENT, &[RELAYED]));
    assert_eq!(lab.commands(), []);
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [Command::BindDoubtful(binding(0x4000, PEER))]);
}

#[test]
fn a22_replayed_request_of_a_spent_transaction_is_ignored() {
    let mut lab = Lab::bound();
    lab.request(&channel_bind(1, 0x4000, OTHER_PEER));
    lab.response(&channel_bound(1));
    lab.commands();
    lab.request(&channel_bind(0xb0, 0x4000, PEER));
    lab.response(&channel_bound(0xb0));
    lab.assert_refused(Refusal::CompletedTransaction);
    assert_eq!(lab.bindings(), [(0x4000, at(OTHER_PEER))]);
}

#[test]
fn a37_success_of_a_hidden_request_spends_its_id() {
    let mut lab = Lab::allocated();
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::UnknownTransaction);
    lab.request(&channel_bind(1, 0x4000, ATTACKER));
    lab.assert_refused(Refusal::ContradictedTransaction);
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::PoisonedTransaction);
}

#[test]
fn a38_forgery_that_the_server_ignores_is_no_claim() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, ATTACKER).fingerprint(1));
    lab.assert_refused(Refusal::BadFingerprint);
    lab.response(&channel_bound(1));
    lab.assert_refused(Refusal::PoisonedTransaction);

    lab.request(&channel_bind(2, 0x4000, PEER).fingerprint(0));
    lab.response(&channel_bound(2).fingerprint(0));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}

#[test]
fn a38_response_with_a_wrong_fingerprint_is_none() {
    let mut lab = Lab::allocated();
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1).fingerprint(0x8000));
    lab.assert_refused(Refusal::BadFingerprint);
    lab.response(&channel_bound(1).fingerprint(0));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
}
