//! Whose a session is: who bills by it must not be told a name by anyone but the server.

use turn_snoop::User;

use crate::lab::*;
use crate::message::*;

fn named(id: Id, name: &[u8]) -> Message {
    let message = Message::new(CHANNEL_BIND_REQUEST, id).channel(0x4000).peer(at(PEER));
    message.attribute(0x0006, name).attribute(0x0014, b"lab").integrity()
}

fn user(lab: &Lab) -> Option<User> {
    let allocation = lab.snoop.allocation(five_tuple(CLIENT)).expect("an allocation");
    allocation.user().map(|user| (**user).clone())
}

fn alice() -> Option<User> {
    Some(User { username: "alice".into(), realm: Some("lab".into()) })
}

#[test]
fn a_name_is_known_once_the_server_has_granted_its_request() {
    let mut lab = Lab::allocated();
    lab.request(&named(1, b"alice"));
    assert_eq!(user(&lab), None, "a claim");
    lab.response(&channel_bound(1));
    assert_eq!(user(&lab), alice());
    // The client renews its binding.
    lab.request(&named(2, b"alice"));
    lab.response(&channel_bound(2));
    assert_eq!(user(&lab), alice());
}

#[test]
fn a_name_that_the_server_refused_is_nobodys() {
    let mut lab = Lab::allocated();
    lab.request(&named(1, b"alice"));
    lab.response(&Message::new(CHANNEL_BIND_ERROR, 1).error(401));
    lab.request(&channel_bind(2, 0x4001, OTHER_PEER));
    lab.response(&channel_bound(2));
    assert_eq!(user(&lab).map(|user| user.username), Some("user".into()));
}

/// Who sees a transaction id can send the same request under another name, before or after the genuine one.
#[test]
fn two_names_under_one_transaction_are_none() {
    for names in [[b"alice", b"mally"], [b"mally", b"alice"]] {
        let mut lab = Lab::allocated();
        for name in names {
            lab.request(&named(1, name));
        }
        lab.response(&channel_bound(1));
        assert_eq!(lab.commands(), [bind(0x4000, PEER)], "the binding itself is not in doubt");
        assert_eq!(user(&lab), None);
    }
}

#[test]
fn what_is_no_name_in_clear_is_none() {
    let unsigned = Message::new(CHANNEL_BIND_REQUEST, 1).channel(0x4000).peer(at(PEER));
    let unsigned = unsigned.attribute(0x0006, b"alice");
    for request in [unsigned, named(1, b"\xff\xfe"), named(1, &[b'a'; 514])] {
        let mut lab = Lab::allocated();
        lab.request(&request);
        lab.response(&channel_bound(1));
        assert_eq!(user(&lab), None, "{:02x?}", request.bytes());
    }
}

#[test]
fn the_name_of_a_client_that_was_there_before_is_known_too() {
    let mut lab = Lab::new();
    lab.request(&named(1, b"alice"));
    lab.response(&channel_bound(1));
    assert_eq!(user(&lab), alice());
}
