//! What is no control message, or none that is of use (RFC 8489 section 6.3).

use std::collections::HashSet;

use turn_snoop::{Limits, Refusal, Revocation, Snoop};

use crate::lab::*;
use crate::message::*;

#[test]
fn fr1_top_bits_are_zero() {
    for first in [0x40, 0x7f, 0x80, 0xc0, 0xff] {
        let mut lab = Lab::allocated();
        let mut bytes = channel_bind(1, 0x4000, PEER).bytes();
        bytes[0] = first;
        lab.request_bytes(CLIENT, &bytes);
        lab.assert_refused(Refusal::NotStun);
    }
}

#[test]
fn fr1_shorter_than_a_header_is_nothing() {
    let bytes = channel_bind(1, 0x4000, PEER).bytes();
    for length in 0..20 {
        let mut lab = Lab::allocated();
        lab.request_bytes(CLIENT, &bytes[..length]);
        lab.assert_refused(Refusal::NotStun);
    }
}

#[test]
fn fr2_every_bit_of_the_cookie_counts() {
    for bit in 0..32 {
        let mut lab = Lab::allocated();
        let mut bytes = channel_bind(1, 0x4000, PEER).bytes();
        bytes[4 + bit / 8] ^= 1 << (bit % 8);
        lab.request_bytes(CLIENT, &bytes);
        lab.assert_refused(Refusal::NoMagicCookie);
    }
}

#[test]
fn fr3_attribute_beyond_the_message_is_refused() {
    let mut lab = Lab::allocated();
    let mut bytes = Message::new(CHANNEL_BIND_REQUEST, 1).peer(at(PEER)).channel(0x4000).bytes();
    let length = bytes.len();
    bytes[length - 5] = 5;
    lab.request_bytes(CLIENT, &bytes);
    lab.assert_refused(Refusal::BadAttributes);
}

#[test]
fn fr4_fr5_only_the_types_of_turn_change_anything() {
    let requests = [ALLOCATE_REQUEST, REFRESH_REQUEST, CREATE_PERMISSION_REQUEST, CHANNEL_BIND_REQUEST];
    for kind in 0..0x4000 {
        let mut lab = Lab::bound();
        let message = Message::new(kind, 1).mapped(at(CLIENT)).relayed(at(OTHER_RELAYED)).lifetime(0);
        lab.request(&Message::new(kind, 1).channel(0x4001).peer(at(OTHER_PEER)));
        assert_eq!(lab.refused().is_empty(), requests.contains(&kind), "{kind:#06x}");
        lab.response(&message.error(437));
        let changes = match kind {
            ALLOCATE_SUCCESS => vec![unbind(0x4000, PEER, Revocation::ReplacedAllocation), forget()],
            REFRESH_SUCCESS => vec![unbind(0x4000, PEER, Revocation::RefreshedToZero), forget()],
            CREATE_PERMISSION_ERROR | CHANNEL_BIND_ERROR => {
                vec![unbind(0x4000, PEER, Revocation::AllocationMismatch), forget()]
            }
            _ => vec![],
        };
        assert_eq!(lab.commands(), changes, "{kind:#06x}");
    }
}

#[test]
fn messages_in_the_wrong_direction_are_counted_by_name() {
    let mut lab = Lab::allocated();
    lab.request(&Message::new(SEND_INDICATION, 1));
    lab.assert_refused(Refusal::Indication);
    lab.request(&Message::new(BINDING_REQUEST, 1));
    lab.assert_refused(Refusal::UnusedMethod);
    lab.response(&channel_bind(1, 0x4000, PEER));
    lab.assert_refused(Refusal::RequestLeaving);
    lab.request(&channel_bound(1));
    lab.assert_refused(Refusal::ResponseEntering);
}

#[test]
fn refusals_have_one_name_each() {
    let names: HashSet<_> = Refusal::ALL.iter().map(|refusal| refusal.as_str()).collect();
    assert_eq!(names.len(), Refusal::ALL.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    let snoop = Snoop::new(Limits::default());
    assert!(snoop.refusals().map(|(refusal, _)| refusal).eq(Refusal::ALL.iter().copied()));
}
