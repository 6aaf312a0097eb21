//! Calls that were there before anyone looked, found by what the server does with their data.

use std::time::Duration;

use turn_snoop::{CameIn, Command, Leg, Limits, Refusal, Revocation};

use crate::lab::*;
use crate::message::*;

/// As many different datagrams in a row show a direction.
const PROOFS: u64 = 16;

fn leg(source: &str, destination: &str, channel: Option<u16>) -> Leg {
    Leg { source: at(source), destination: at(destination), channel }
}

/// One direction of a call: what comes in and what leaves.
#[derive(Clone, Copy, Debug)]
struct Way {
    input: Leg,
    output: Leg,
}

fn to_peer(client: &str, channel: u16, relayed: &str, peer: &str) -> Way {
    Way { input: leg(client, SERVER, Some(channel)), output: leg(relayed, peer, None) }
}

fn to_client(client: &str, channel: u16, relayed: &str, peer: &str) -> Way {
    Way { input: leg(peer, relayed, None), output: leg(SERVER, client, Some(channel)) }
}

/// Both directions of a call of `CLIENT`.
fn call(channel: u16, relayed: &str, peer: &str) -> [Way; 2] {
    [to_peer(CLIENT, channel, relayed, peer), to_client(CLIENT, channel, relayed, peer)]
}

impl Lab {
    fn see(&mut self, output: Leg, fingerprint: u64, came_in: CameIn) {
        self.snoop.handle_output(self.now, output, fingerprint, came_in);
    }

    /// The server does with so many datagrams what it should.
    fn show(&mut self, way: Way, fingerprints: impl IntoIterator<Item = u64>) {
        for fingerprint in fingerprints {
            self.see(way.output, fingerprint, CameIn::As(way.input));
        }
    }

    fn show_call(&mut self, ways: [Way; 2], from: u64) {
        self.show(ways[0], from..from + PROOFS);
        self.show(ways[1], from + 100..from + 100 + PROOFS);
    }

    /// Nothing but `ways` is joined, if any.
    #[track_caller]
    fn assert_joins_nothing(&mut self) {
        assert_eq!(self.commands(), []);
        assert_eq!(self.bindings(), []);
        assert_eq!(self.snoop.allocation_count(), 0);
    }
}

fn joined(channel: u16, peer: &str) -> [Command; 2] {
    [Command::Follow(five_tuple(CLIENT)), Command::BindDoubtful(binding(channel, peer))]
}

#[test]
fn a_call_that_the_server_relays_both_ways_is_joined() {
    for (relayed, peer) in [(RELAYED, PEER), (RELAYED_V6, PEER_V6)] {
        let ways = call(0x4000, relayed, peer);
        for order in [[0, 1], [1, 0]] {
            let mut lab = Lab::new();
            lab.show(ways[order[0]], 0..PROOFS);
            lab.show(ways[order[1]], 100..99 + PROOFS);
            assert_eq!(lab.commands(), [], "the server has to show both directions, several times");
            lab.show(ways[order[1]], [99 + PROOFS]);
            assert_eq!(lab.commands(), joined(0x4000, peer));
            lab.assert_nothing_refused();
        }
    }
}

#[test]
fn a_call_that_was_joined_is_like_any_other() {
    let mut lab = Lab::new();
    lab.show_call(call(0x4000, RELAYED, PEER), 0);
    lab.commands();
    // A second channel of the same client.
    lab.show_call(call(0x4001, RELAYED, OTHER_PEER), 1000);
    assert_eq!(lab.commands(), joined(0x4001, OTHER_PEER));
    // Bound anew they are the same bindings.
    lab.request(&channel_bind(1, 0x4000, PEER));
    lab.response(&channel_bound(1));
    assert_eq!(lab.commands(), [bind(0x4000, PEER)]);
    // To another peer the first one is over.
    lab.request(&channel_bind(2, 0x4001, PEER_V6));
    lab.response(&channel_bound(2));
    let rebound = turn_snoop::ChannelBinding { relayed: None, ..binding(0x4001, PEER_V6) };
    assert_eq!(lab.commands(), [unbind(0x4001, OTHER_PEER, Revocation::Rebound), Command::Bind(rebound)]);
    lab.response(&Message::new(REFRESH_SUCCESS, 3).lifetime(0));
    assert_eq!(
        lab.commands(),
        [
            unbind(0x4000, PEER, Revocation::RefreshedToZero),
            Command::Unbind(rebound, Revocation::RefreshedToZero),
            forget()
        ]
    );
    lab.assert_nothing_refused();
}

#[test]
fn the_relayed_address_of_a_joined_call_is_nobody_elses() {
    let mut lab = Lab::new();
    lab.show_call(call(0x4000, RELAYED, PEER), 0);
    lab.commands();
    lab.response_to(OTHER_CLIENT, &allocated(1, OTHER_CLIENT, &[RELAYED]));
    assert_eq!(
        lab.commands(),
        [
            unbind(0x4000, PEER, Revocation::RelayedAddressReused),
            Command::BindDoubtful(binding(0x4000, PEER))
        ]
    );
}

/// Keep-alives and silence are the same datagram again and again, which anyone can send, too.
#[test]
fn the_same_data_again_proves_nothing() {
    let mut lab = Lab::new();
    let [there, back] = call(0x4000, RELAYED, PEER);
    lab.show(there, 0..PROOFS);
    for _ in 0..1000 {
        lab.show(back, [1, 2, 3]);
    }
    lab.assert_joins_nothing();
}

#[test]
fn data_that_came_in_several_ways_prove_nothing_and_contradict_nothing() {
    let mut lab = Lab::new();
    let [there, back] = call(0x4000, RELAYED, PEER);
    lab.show(there, 0..PROOFS);
    for fingerprint in 0..100 {
        lab.see(back.output, fingerprint, CameIn::Ambiguous);
    }
    lab.assert_joins_nothing();
    lab.show(back, 200..200 + PROOFS);
    assert_eq!(lab.commands(), joined(0x4000, PEER));
    lab.assert_nothing_refused();
}

/// A call of a client that is out of sight (over TCP or TLS, or by another interface) has its data relayed from `RELAYED` to `PEER`. An
/// insider who knows some of the data beforehand sends it, too, on a channel of his own.
#[test]
fn who_knows_some_of_a_hidden_clients_data_does_not_get_its_call() {
    for hits in 1..PROOFS {
        let mut lab = Lab::new();
        let [there, back] = call(0x4000, RELAYED, PEER);
        // What comes to his own client he has a friend send, and there he never fails.
        lab.show(back, 70_000..70_100);
        for round in 0..50 {
            lab.show(there, (0..hits).map(|hit| round * 100 + hit));
            lab.see(there.output, 50_000 + round, CameIn::Unseen);
            lab.pass(Duration::from_secs(5));
            lab.show(back, [60_000 + round]);
        }
        lab.assert_joins_nothing();
        assert!(lab.refused().contains(&Refusal::ContradictedCall));
    }
}

/// Each row: what else is seen when one proof is missing.
#[test]
fn what_does_not_fit_blocks_a_direction_for_a_minute() {
    let [there, back] = call(0x4000, RELAYED, PEER);
    let other = to_peer(OTHER_CLIENT, 0x4000, RELAYED, PEER);
    let elsewhere = to_peer(CLIENT, 0x4000, OTHER_RELAYED, OTHER_PEER);
    let to_other = to_client(OTHER_CLIENT, 0x4000, RELAYED, PEER);
    let contradictions: [(&str, Leg, CameIn); 4] = [
        ("an output of nobody's", there.output, CameIn::Unseen),
        ("the same output of another client", other.output, CameIn::As(other.input)),
        ("another output of the same client", elsewhere.output, CameIn::As(elsewhere.input)),
        ("the peer's data to another client", to_other.output, CameIn::As(to_other.input)),
    ];
    for (what, output, came_in) in contradictions {
        let mut lab = Lab::new();
        lab.show(back, 100..99 + PROOFS);
        lab.show(there, 0..PROOFS - 1);
        lab.see(output, 77, came_in);
        lab.assert_refused(Refusal::ContradictedCall);
        lab.show(there, 20..20 + PROOFS);
        lab.show(back, 120..120 + PROOFS);
        assert_eq!(lab.bindings(), [], "{what}");
        assert!(lab.refused().contains(&Refusal::ContradictedCall), "{what}");
        // The other one does not get it instead.
        if let CameIn::As(input) = came_in {
            lab.show(Way { input, output }, 40..40 + PROOFS);
            assert_eq!(lab.bindings(), [], "{what}");
        }
        lab.refused();

        lab.pass(Duration::from_secs(61));
        lab.show_call([there, back], 500);
        assert_eq!(lab.commands(), joined(0x4000, PEER), "{what}");
    }
}

#[test]
fn proofs_of_long_ago_do_not_count() {
    let mut lab = Lab::new();
    let [there, back] = call(0x4000, RELAYED, PEER);
    lab.show(there, 0..PROOFS);
    lab.show(back, 100..99 + PROOFS);
    lab.pass(Duration::from_secs(31));
    lab.show(back, [200]);
    lab.assert_joins_nothing();
}

#[test]
fn whom_a_channel_bind_would_be_refused_is_not_joined() {
    let refused = [
        (CLIENT, RELAYED, "127.0.0.1:5000", Refusal::PeerNotAllowed),
        (CLIENT, RELAYED, "169.254.169.254:80", Refusal::PeerNotAllowed),
        (CLIENT, RELAYED, "192.0.2.77:5000", Refusal::PeerIsThisHost),
        (CLIENT, "192.0.2.1:3478", PEER, Refusal::RelayedAddressIsListener),
        ("127.0.0.1:40000", RELAYED, PEER, Refusal::ClientNotAllowed),
        ("192.0.2.77:40000", RELAYED, PEER, Refusal::ClientNotAllowed),
    ];
    for (client, relayed, peer, refusal) in refused {
        let mut lab = Lab::new();
        lab.snoop.set_local_addresses(["192.0.2.1", "192.0.2.77"].map(|ip| ip.parse().unwrap()));
        lab.show_call([to_peer(client, 0x4000, relayed, peer), to_client(client, 0x4000, relayed, peer)], 0);
        lab.assert_refused(refusal);
        assert_eq!(lab.snoop.allocation_count(), 0);
    }
}

/// Of an allocation that was seen being made every channel was seen being bound.
#[test]
fn a_known_allocation_gets_no_other_binding() {
    let mut lab = Lab::bound();
    lab.show_call(call(0x4001, RELAYED, OTHER_PEER), 0);
    lab.assert_refused(Refusal::ContradictedCall);
    lab.show_call(call(0x4000, RELAYED, OTHER_PEER), 1000);
    lab.assert_refused(Refusal::ContradictedCall);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn nobody_gets_the_relayed_address_of_a_known_allocation() {
    let mut lab = Lab::bound();
    lab.show_call(
        [
            to_peer(OTHER_CLIENT, 0x4000, RELAYED, OTHER_PEER),
            to_client(OTHER_CLIENT, 0x4000, RELAYED, OTHER_PEER),
        ],
        0,
    );
    lab.assert_refused(Refusal::OtherRelayedAddress);
    assert_eq!(lab.bindings(), [(0x4000, at(PEER))]);
}

#[test]
fn two_relayed_addresses_are_not_one_clients() {
    let mut lab = Lab::new();
    lab.show_call(call(0x4000, RELAYED, PEER), 0);
    lab.commands();
    lab.show_call(call(0x4001, OTHER_RELAYED, OTHER_PEER), 1000);
    lab.assert_refused(Refusal::OtherRelayedAddress);
}

/// Two clients of one server, and programs that turn datagrams into others and have nothing to do with TURN.
#[test]
fn what_is_no_call_between_client_and_peer_is_not_joined() {
    let pair =
        Way { input: leg(CLIENT, SERVER, Some(0x4000)), output: leg(SERVER, OTHER_CLIENT, Some(0x4001)) };
    let back = Way { input: pair.output.reversed(), output: pair.input.reversed() };
    let plain = Way { input: leg(CLIENT, SERVER, None), output: leg(RELAYED, PEER, None) };
    let plain_back = Way { input: plain.output.reversed(), output: plain.input.reversed() };
    for ways in [[pair, back], [plain, plain_back]] {
        let mut lab = Lab::new();
        lab.show_call(ways, 0);
        lab.show_call(ways, 1000);
        lab.assert_joins_nothing();
    }
}

#[test]
fn what_is_remembered_is_bounded_and_forgotten() {
    let mut lab = Lab::with_limits(Limits { directions: 8, ..Limits::default() });
    for port in 1..=1000 {
        let way = to_peer(&format!("203.0.113.9:{port}"), 0x4000, RELAYED, &format!("203.0.113.8:{port}"));
        lab.show(way, [u64::from(port as u16)]);
    }
    let refused = lab.refused();
    assert_eq!(refused.len(), 1000 - 8);
    assert!(refused.iter().all(|refusal| *refusal == Refusal::TooManyCalls));
    lab.pass(Duration::from_secs(31));
    assert_eq!(lab.snoop.poll_timeout(), None, "nothing is kept for ever");
    lab.show_call(call(0x4000, RELAYED, PEER), 0);
    assert_eq!(lab.commands(), joined(0x4000, PEER));
}
