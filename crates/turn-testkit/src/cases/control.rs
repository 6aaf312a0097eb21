//! Control messages: what the daemon gets a copy of.

use std::net::SocketAddr;

use turn_datapath::control::{MAX_MESSAGE, kind};
use turn_datapath::{FlowKey, Reason};
use turn_wire::Be16;

use super::draft::Draft;
use super::subject::{Subject, key, leg};
use super::{Case, Input, Message, NOW};
use crate::packet::{Packet, UdpChecksum};

/// Type of a ChannelBind request.
pub const CHANNEL_BIND: u16 = 0x0009;

const REQUESTS: [u16; 3] = [0x0004, 0x0008, CHANNEL_BIND];
const ALLOCATE_SUCCESS: u16 = 0x0103;
const CHANNEL_BIND_SUCCESS: u16 = 0x0109;
/// Those that make a client known.
pub(super) const INTRODUCTIONS: [u16; 2] = [ALLOCATE_SUCCESS, CHANNEL_BIND_SUCCESS];
pub(super) const OTHER_RESPONSES: [u16; 4] = [0x0104, 0x0114, 0x0118, 0x0119];
const HEADER: usize = 20;

/// A STUN message of this type with so many bytes of attributes, which mean nothing.
pub fn stun(stun_type: u16, attributes: usize) -> Vec<u8> {
    let mut message = stun_type.to_be_bytes().to_vec();
    message.extend((attributes as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend(super::subject::data(12 + attributes));
    message
}

/// Refresh, CreatePermission and ChannelBind of a known client, of every length up to the longest that is copied.
pub fn requests_of_known_clients_are_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for stun_type in REQUESTS {
            for attributes in [0, 4, 100, 101, MAX_MESSAGE - HEADER - 1, MAX_MESSAGE - HEADER] {
                let message = stun(stun_type, attributes);
                let case = from_known_client(&subject, stun_type, &message).passes(Reason::Control);
                cases.push(with_copy(case, kind::REQUEST, request_key(&subject), message));
            }
        }
    }
    cases
}

/// The bytes of the frame behind the message are no part of it.
pub fn trailers_are_not_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        let message = stun(CHANNEL_BIND, 0);
        let packet = to_server(&subject, &message).trailer(&[7; 11]);
        let draft = Draft::received("trailer", &subject, packet.build());
        let client = request_key(&subject);
        let case = draft.setting(|setting| setting.clients = [client].into()).passes(Reason::Control);
        cases.push(with_copy(case, kind::REQUEST, client, message));
    }
    cases
}

/// Longer ones are counted and not copied.
pub fn requests_that_are_too_long_pass() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for stun_type in REQUESTS {
            for attributes in [MAX_MESSAGE - HEADER + 1, MAX_MESSAGE, 1440] {
                let message = stun(stun_type, attributes);
                cases.push(from_known_client(&subject, stun_type, &message).passes(Reason::ControlTooLong));
            }
        }
    }
    cases
}

/// A ChannelBind request of a client that is not known, which may be because its call is older than turn-bpf.
pub fn a17_strangers_are_copied_only_while_they_are_few() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for attributes in [0, 24, MAX_MESSAGE - HEADER] {
            let message = stun(CHANNEL_BIND, attributes);
            let frame = to_server(&subject, &message).build();
            let few = Draft::received(format!("few, {attributes}"), &subject, frame.clone());
            let case = few.passes(Reason::Control);
            cases.push(with_copy(case, kind::REQUEST, request_key(&subject), message));
            let many = Draft::received(format!("many, {attributes}"), &subject, frame);
            cases.push(many.setting(|setting| setting.admits_strangers = false).passes(Reason::NoFlow));
        }
        let long = to_server(&subject, &stun(CHANNEL_BIND, MAX_MESSAGE)).build();
        cases.push(Draft::received("too long", &subject, long).passes(Reason::ControlTooLong));
    }
    cases
}

/// Requests of unknown clients, and every other type of known ones: Binding, Allocate, indications, responses.
pub fn a17_a11_other_stun_messages_are_not_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for stun_type in REQUESTS.into_iter().filter(|stun_type| *stun_type != CHANNEL_BIND) {
            let frame = to_server(&subject, &stun(stun_type, 8)).build();
            let draft = Draft::received(format!("unknown client, {stun_type:#06x}"), &subject, frame);
            cases.push(draft.passes(Reason::NoFlow));
        }
        for stun_type in (0..0x4000).step_by(7).chain(0..0x0220).filter(|known| !REQUESTS.contains(known)) {
            let message = stun(stun_type, 8);
            cases.push(from_known_client(&subject, stun_type, &message).passes(Reason::NoFlow));
        }
    }
    cases
}

/// Without the magic cookie, and too short for a header.
pub fn fr2_fr18_messages_without_the_cookie_are_not_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for bit in 0..32 {
            let mut message = stun(CHANNEL_BIND, 8);
            message[4 + bit / 8] ^= 0x80 >> (bit % 8);
            cases.push(from_known_client(&subject, CHANNEL_BIND, &message).passes(Reason::NoFlow));
        }
        for length in 4..HEADER {
            let message = stun(CHANNEL_BIND, 0);
            let draft = from_known_client(&subject, CHANNEL_BIND, &message[..length]);
            cases.push(draft.passes(Reason::NoFlow));
        }
    }
    cases
}

/// A request is copied whatever its checksum: the server may not see it, and the daemon does not learn from requests alone.
pub fn requests_are_copied_whatever_their_checksum() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for checksum in [UdpChecksum::Zero, UdpChecksum::Partial, UdpChecksum::Corrupt(1)] {
            let message = stun(CHANNEL_BIND, 24);
            let frame = to_server(&subject, &message).udp_checksum(checksum).build();
            let client = request_key(&subject);
            let draft = Draft::received(format!("{checksum:?}"), &subject, frame);
            let case = draft.setting(|setting| setting.clients = [client].into()).passes(Reason::Control);
            cases.push(with_copy(case, kind::REQUEST, client, message));
        }
    }
    cases
}

/// An Allocate success makes its client known, and a client that is known stays so. So does a ChannelBind success, which
/// may be the first that is seen of an allocation.
pub fn successes_make_a_client_known() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for (is_known, stun_type) in [false, true].into_iter().flat_map(|is| INTRODUCTIONS.map(|of| (is, of)))
        {
            for attributes in [0, 40, MAX_MESSAGE - HEADER] {
                let message = stun(stun_type, attributes);
                let client = request_key(&subject);
                let draft = response(&subject, &message).setting(|setting| {
                    setting.clients = is_known.then_some(client).into_iter().collect();
                });
                let mut case = draft.passes(Reason::EgressOther);
                case.outcome.clients = [client].into();
                cases.push(with_copy(case, kind::RESPONSE, response_key(&subject), message));
            }
        }
        // From a relayed transport address anything may come.
        for (port, is_listener) in [(32_767, true), (32_768, false), (65_535, false)] {
            let from = SocketAddr::new(subject.input.destination.ip(), port);
            let message = stun(ALLOCATE_SUCCESS, 40);
            let packet = Packet::new(from, subject.input.source).payload(&message);
            let draft = Draft::sent(format!("from port {port}"), &subject, packet.build());
            let mut case = draft.passes(Reason::EgressOther);
            let client = key(&leg(subject.input.source, from, None));
            case.outcome.clients = is_listener.then_some(client).into_iter().collect();
            let source = key(&leg(from, subject.input.source, None));
            cases.push(with_copy(case, kind::RESPONSE, source, message));
        }
    }
    cases
}

/// What the server answers to a known client.
pub fn responses_to_known_clients_are_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for stun_type in OTHER_RESPONSES {
            for attributes in [0, 4, 101, MAX_MESSAGE - HEADER] {
                let message = stun(stun_type, attributes);
                let draft = response(&subject, &message)
                    .setting(|setting| setting.clients = [request_key(&subject)].into());
                let case = draft.passes(Reason::EgressOther);
                cases.push(with_copy(case, kind::RESPONSE, response_key(&subject), message));
            }
        }
    }
    cases
}

/// Responses to strangers, other types, responses that are forwarded or too long.
pub fn a11_a12_a14_other_responses_are_not_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        for stun_type in OTHER_RESPONSES {
            let message = stun(stun_type, 8);
            cases.push(response(&subject, &message).passes(Reason::EgressOther));
            let forwarded = response(&subject, &message)
                .setting(|setting| setting.clients = [request_key(&subject)].into())
                .how(|sent| sent.by_this_host = false);
            cases.push(forwarded.passes(Reason::EgressOther));
            let long = response(&subject, &stun(stun_type, MAX_MESSAGE - HEADER + 1))
                .setting(|setting| setting.clients = [request_key(&subject)].into());
            cases.push(long.passes(Reason::EgressOther));
        }
        let copied = [&INTRODUCTIONS[..], &OTHER_RESPONSES].concat();
        for stun_type in (0..0x0220).filter(|stun_type| !copied.contains(stun_type)) {
            let draft = response(&subject, &stun(stun_type, 8))
                .setting(|setting| setting.clients = [request_key(&subject)].into());
            cases.push(draft.passes(Reason::EgressOther));
        }
        for stun_type in INTRODUCTIONS {
            let forwarded = response(&subject, &stun(stun_type, 8)).how(|sent| sent.by_this_host = false);
            cases.push(forwarded.passes(Reason::EgressOther));
            // A client that answers itself.
            let incoming = from_known_client(&subject, stun_type, &stun(stun_type, 40));
            cases.push(incoming.passes(Reason::NoFlow));
            let mut long =
                response(&subject, &stun(stun_type, MAX_MESSAGE - HEADER + 1)).passes(Reason::EgressOther);
            long.outcome.clients = [request_key(&subject)].into();
            cases.push(long);
        }
    }
    cases
}

pub(super) fn to_server(subject: &Subject, message: &[u8]) -> Packet {
    Packet::new(subject.input.source, subject.input.destination).payload(message)
}

fn from_known_client(subject: &Subject, stun_type: u16, message: &[u8]) -> Draft {
    let name = format!("STUN type {stun_type:#06x}, {} bytes", message.len());
    Draft::received(name, subject, to_server(subject, message).build())
        .setting(|setting| setting.clients = [request_key(subject)].into())
}

fn response(subject: &Subject, message: &[u8]) -> Draft {
    let packet = Packet::new(subject.input.destination, subject.input.source).payload(message);
    Draft::sent(format!("response, {} bytes", message.len()), subject, packet.build())
}

pub(super) fn request_key(subject: &Subject) -> FlowKey {
    subject.key().with_channel(Be16::new(0))
}

pub(super) fn response_key(subject: &Subject) -> FlowKey {
    key(&leg(subject.input.destination, subject.input.source, None))
}

pub(super) fn with_copy(mut case: Case, kind: u32, key: FlowKey, bytes: Vec<u8>) -> Case {
    if matches!(case.input, Input::Sent { .. }) {
        case.outcome.counted.push(Reason::EgressControl);
    }
    case.outcome.messages = vec![Message { kind, time: NOW, key, bytes }];
    case
}
