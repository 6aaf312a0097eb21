//! Two clients of one server whose peers are each other's relayed transport addresses: from client to client in one step.

use std::net::SocketAddr;
use std::time::Duration;

use turn_testkit::coturn::{CoturnOptions, PORT};
use turn_testkit::lab::{Family, Topology};
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::traffic::Traffic;
use turn_testkit::turn_client::{Received, TurnClient};

use crate::calls::{EchoingClient, Talk, load, talk_in_kernel};
use crate::wires::{Datagram, Wires, assert_carried};
use crate::{FAMILY_PAIRS, TOPOLOGIES, options};

pub const TO_SECOND: u16 = 0x4011;
pub const TO_FIRST: u16 = 0x4022;
const TO_THIRD: u16 = 0x4033;

/// A client where the lab's clients are, with an allocation.
pub fn near(offload: &Offload, family: Family, relayed: Family) -> (TurnClient, SocketAddr) {
    offload.allocated_client_of(family, relayed)
}

/// A client where the lab's peers are, with an allocation.
pub fn far(offload: &Offload, family: Family, relayed: Family) -> (TurnClient, SocketAddr) {
    let addresses = offload.lab.addresses(family);
    let socket = offload.lab.peer.udp_socket((addresses.peer, 0).into()).unwrap();
    let mut client = TurnClient::new(socket, (addresses.listen, PORT).into());
    let relayed = client.allocate(Some(relayed), None).unwrap().relayed;
    (client, relayed)
}

/// coturn takes a second to be done with an allocation that was deleted.
fn allocate_again(client: &mut TurnClient) -> SocketAddr {
    let mut relayed = None;
    wait_until("the server has forgotten the old allocation", || {
        relayed = client.allocate(None, None).ok();
        relayed.is_some()
    });
    relayed.expect("an allocation").relayed
}

/// What is on the wires is ChannelData between clients and server, and nothing else.
pub fn assert_client_to_client(
    datagrams: &[Datagram],
    clients: [(SocketAddr, SocketAddr, u16); 2],
    talk: &Talk,
) {
    for (client, server, channel) in clients {
        assert_carried(datagrams, (client, server), talk);
        assert_carried(datagrams, (server, client), talk);
        let of_client = datagrams
            .iter()
            .filter(|datagram| [(client, server), (server, client)].contains(&datagram.ends()));
        for datagram in of_client {
            let (found, ..) = datagram.packet.channel_data().expect("ChannelData");
            assert_eq!(found, channel, "{datagram:?}");
        }
    }
    let ends = clients.map(|(client, server, _)| (client, server));
    for datagram in datagrams {
        let (source, destination) = datagram.ends();
        assert!(
            ends.contains(&(source, destination)) || ends.contains(&(destination, source)),
            "{datagram:?}"
        );
    }
}

#[test]
fn clients_of_all_families_reach_each_other_in_one_step() {
    for (topology, mode) in [
        (Topology::One, "native"),
        (Topology::One, "tc"),
        (Topology::Two, "generic"),
        (Topology::Two, "native"),
    ] {
        let offload = options().topology(topology).mode(mode).start();
        for relay in [Family::V4, Family::V6] {
            for families in FAMILY_PAIRS {
                let (mut first, first_relayed) = near(&offload, families.0, relay);
                let (mut second, second_relayed) = far(&offload, families.1, relay);
                first.channel_bind(TO_SECOND, second_relayed).unwrap();
                second.channel_bind(TO_FIRST, first_relayed).unwrap();
                wait_until("both are bound", || offload.sessions().len() == 2);
                let ends = [(&first, TO_SECOND), (&second, TO_FIRST)]
                    .map(|(client, channel)| (client.address().unwrap(), client.server(), channel));
                let second = EchoingClient::start(second);
                offload.arm(&mut first, TO_SECOND);

                let wires = Wires::of(&offload);
                let kernel_packets = offload.kernel_packets();
                let traffic = Traffic { duration: Duration::from_millis(500), ..load(1) };
                let talk = talk_in_kernel(&offload, &mut first, TO_SECOND, &traffic);
                let after = &talk.session;

                let mut second = second.stop();
                let other = offload.session(&second, TO_FIRST).unwrap();
                assert_eq!((after.relayed, after.peer), (first_relayed, second_relayed));
                assert_eq!((other.relayed, other.peer), (second_relayed, first_relayed));
                assert_eq!(other.state, "kernel");
                // Each counts the other's way back as its own.
                assert_eq!(other.client_to_peer, after.peer_to_client);
                assert_eq!(other.peer_to_client, after.client_to_peer);
                assert_eq!(offload.kernel_packets() - kernel_packets, talk.kernel, "one step is one packet");
                assert_client_to_client(&wires.datagrams(), ends, &talk);

                first.refresh(0).unwrap();
                second.refresh(0).unwrap();
                wait_until("all is over", || offload.sessions().is_empty());
            }
        }
    }
}

/// Both come in by the interface that they leave by.
#[test]
fn clients_on_the_same_side_reach_each_other() {
    for mode in ["native", "generic"] {
        let offload = options().mode(mode).start();
        let (mut first, first_relayed) = near(&offload, Family::V4, Family::V4);
        let (mut second, second_relayed) = near(&offload, Family::V6, Family::V4);
        first.channel_bind(TO_SECOND, second_relayed).unwrap();
        second.channel_bind(TO_FIRST, first_relayed).unwrap();
        let ends = [(&first, TO_SECOND), (&second, TO_FIRST)]
            .map(|(client, channel)| (client.address().unwrap(), client.server(), channel));
        let _second = EchoingClient::start(second);
        wait_until("both are bound", || offload.sessions().len() == 2);
        offload.arm(&mut first, TO_SECOND);
        let wires = Wires::of(&offload);
        let talk = talk_in_kernel(&offload, &mut first, TO_SECOND, &load(1));
        assert_client_to_client(&wires.datagrams(), ends, &talk);
    }
}

/// The one that stays has lost its peer, and nothing else; with the peer's next allocation all is as before.
#[test]
fn a_counterpart_that_leaves_ends_the_short_way() {
    let offload = options().start();
    let (mut first, first_relayed) = near(&offload, Family::V4, Family::V4);
    let (mut second, second_relayed) = far(&offload, Family::V4, Family::V4);
    let echo = offload.echo();
    offload.bind_and_arm(&mut first, TO_THIRD, &echo);
    first.channel_bind(TO_SECOND, second_relayed).unwrap();
    second.channel_bind(TO_FIRST, first_relayed).unwrap();
    let echoing = EchoingClient::start(second);
    wait_until("both are bound", || offload.sessions().len() == 3);
    offload.arm(&mut first, TO_SECOND);
    second = echoing.stop();

    second.refresh(0).unwrap();
    offload.wait_until_unbound(&second, TO_FIRST);
    let row = offload.session(&first, TO_SECOND).unwrap();
    assert_eq!((row.state.as_str(), row.peer), ("userspace", second_relayed));
    let kernel_packets = offload.kernel_packets();
    for _ in 0..20 {
        first.send_channel_data(TO_SECOND, b"to nobody", &[]).unwrap();
    }
    wait_until("they went to the server", || {
        offload.session(&first, TO_SECOND).unwrap().client_to_peer.spilled_packets >= 20
    });
    assert_eq!(offload.kernel_packets(), kernel_packets);

    let second_relayed = allocate_again(&mut second);
    // What coturn relayed to the allocation in its last second.
    while second.receive(Duration::ZERO).unwrap().is_some() {}
    first.channel_bind(TO_SECOND + 1, second_relayed).unwrap();
    second.channel_bind(TO_FIRST, first_relayed).unwrap();
    offload.wait_for_session(&second, TO_FIRST, |row| row.relayed == second_relayed);
    let _second = EchoingClient::start(second);
    offload.arm(&mut first, TO_SECOND + 1);
    talk_in_kernel(&offload, &mut first, TO_SECOND + 1, &load(1));
    talk_in_kernel(&offload, &mut first, TO_THIRD, &load(2));
}

/// Behind 1:1 NAT clients know each other by addresses that no interface has.
#[test]
fn clients_that_name_each_other_by_public_addresses() {
    for topology in TOPOLOGIES {
        let mut offload = options().topology(topology).without_coturn().start();
        let relay = offload.lab.addresses(Family::V4).relay;
        let external = format!("198.18.100.1/{relay}");
        offload.serve(CoturnOptions::of(&offload.lab).arguments(&["-X", &external]));
        let (mut first, first_relayed) = near(&offload, Family::V4, Family::V4);
        let (mut second, second_relayed) = far(&offload, Family::V4, Family::V4);
        assert_eq!(first_relayed.ip().to_string(), "198.18.100.1");
        first.channel_bind(TO_SECOND, second_relayed).unwrap();
        second.channel_bind(TO_FIRST, first_relayed).unwrap();
        let ends = [(&first, TO_SECOND), (&second, TO_FIRST)]
            .map(|(client, channel)| (client.address().unwrap(), client.server(), channel));
        let _second = EchoingClient::start(second);
        wait_until("both are bound", || offload.sessions().len() == 2);
        offload.arm(&mut first, TO_SECOND);
        let wires = Wires::of(&offload);
        let talk = talk_in_kernel(&offload, &mut first, TO_SECOND, &load(1));
        assert_client_to_client(&wires.datagrams(), ends, &talk);
    }
}

/// The middle one has a channel to each.
#[test]
fn three_in_a_row_reach_their_neighbours() {
    let offload = options().start();
    let (mut first, first_relayed) = near(&offload, Family::V4, Family::V4);
    let (mut second, second_relayed) = far(&offload, Family::V4, Family::V4);
    let (mut third, third_relayed) = near(&offload, Family::V6, Family::V4);
    first.channel_bind(TO_SECOND, second_relayed).unwrap();
    second.channel_bind(TO_FIRST, first_relayed).unwrap();
    second.channel_bind(TO_THIRD, third_relayed).unwrap();
    // The number that the first has for the same peer, on another 5-tuple.
    third.channel_bind(TO_SECOND, second_relayed).unwrap();
    wait_until("all are bound", || offload.sessions().len() == 4);
    let _second = EchoingClient::start(second);
    let wires = Wires::of(&offload);
    for (client, stream) in [(&mut first, 1), (&mut third, 2)] {
        offload.arm(client, TO_SECOND);
        talk_in_kernel(&offload, client, TO_SECOND, &load(stream));
    }
    let relayed = [first_relayed, second_relayed, third_relayed];
    let datagrams = wires.datagrams();
    assert!(!datagrams.is_empty());
    for datagram in datagrams {
        let (source, destination) = datagram.ends();
        assert!(!relayed.contains(&source) && !relayed.contains(&destination), "{datagram:?}");
    }
}

/// The second answers the first on no channel, so there is nothing on the wire that would prove a translation.
#[test]
fn a_counterpart_without_a_channel_is_left_to_the_server() {
    let offload = options().start();
    let (mut first, first_relayed) = near(&offload, Family::V4, Family::V4);
    let (mut second, second_relayed) = far(&offload, Family::V4, Family::V4);
    second.create_permission(&[first_relayed]).unwrap();
    first.channel_bind(TO_SECOND, second_relayed).unwrap();
    offload.wait_for_session(&first, TO_SECOND, |_| true);
    let wires = Wires::of(&offload);
    for number in 0..100_u32 {
        let data = number.to_be_bytes();
        first.send_channel_data(TO_SECOND, &data, &[]).unwrap();
        let expected = Received::DataIndication { peer: first_relayed, data: data.to_vec() };
        assert_eq!(second.receive(PATIENCE).unwrap(), Some(expected));
        second.send_indication(first_relayed, &data).unwrap();
        let expected = Received::ChannelData { channel: TO_SECOND, data: data.to_vec(), padding: Vec::new() };
        assert_eq!(first.receive(PATIENCE).unwrap(), Some(expected));
    }
    wires.datagrams();
    let row = offload.session(&first, TO_SECOND).unwrap();
    assert_eq!((row.state.as_str(), row.reason.as_deref()), ("userspace", Some("no_witness")));
    assert_eq!((row.client_to_peer.spilled_packets, offload.kernel_packets()), (100, 0));

    // As soon as it has one, the short way is there.
    second.channel_bind(TO_FIRST, first_relayed).unwrap();
    offload.wait_for_session(&second, TO_FIRST, |_| true);
    let _second = EchoingClient::start(second);
    offload.arm(&mut first, TO_SECOND);
    talk_in_kernel(&offload, &mut first, TO_SECOND, &load(1));
}

/// A row of three of which the last two have no channel back: A to B, B to C, and nothing returns.
#[test]
fn channels_that_go_one_way_only_are_left_to_the_server() {
    let offload = options().start();
    let (mut first, first_relayed) = near(&offload, Family::V4, Family::V4);
    let (mut second, second_relayed) = far(&offload, Family::V4, Family::V4);
    let (mut third, third_relayed) = near(&offload, Family::V4, Family::V4);
    first.channel_bind(TO_SECOND, second_relayed).unwrap();
    second.channel_bind(TO_THIRD, third_relayed).unwrap();
    second.create_permission(&[first_relayed]).unwrap();
    third.create_permission(&[second_relayed]).unwrap();
    wait_until("both are bound", || offload.sessions().len() == 2);
    for number in 0..50_u32 {
        let data = number.to_be_bytes();
        first.send_channel_data(TO_SECOND, &data, &[]).unwrap();
        let expected = Received::DataIndication { peer: first_relayed, data: data.to_vec() };
        assert_eq!(second.receive(PATIENCE).unwrap(), Some(expected));
        second.send_channel_data(TO_THIRD, &data, &[]).unwrap();
        let expected = Received::DataIndication { peer: second_relayed, data: data.to_vec() };
        assert_eq!(third.receive(PATIENCE).unwrap(), Some(expected));
    }
    assert_eq!(offload.kernel_packets(), 0);
    assert!(offload.sessions().iter().all(|row| row.reason.as_deref() == Some("no_witness")));
}
