//! IPv4 and IPv6, on either leg (RFC 8656 sections 5 and 7.2).

use std::net::SocketAddr;
use std::time::Duration;

use turn_testkit::lab::Family;
use turn_testkit::offload::Offload;
use turn_testkit::traffic::{Channel, Echo, Traffic};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    METHOD_ALLOCATE, METHOD_REFRESH, REQUESTED_ADDRESS_FAMILY, REQUESTED_TRANSPORT, XOR_RELAYED_ADDRESS,
};

use crate::{CHANNEL, options};

/// ADDITIONAL-ADDRESS-FAMILY (RFC 8656 section 18.11), and the number that it had in drafts, which coturn 4.6 knows.
const ADDITIONAL_ADDRESS_FAMILY: [u16; 2] = [0x8000, 0x8032];
const IPV6: [u8; 4] = [2, 0, 0, 0];

fn client(offload: &Offload, family: Family) -> TurnClient {
    let addresses = offload.lab.addresses(family);
    let listener = SocketAddr::new(addresses.listen, turn_testkit::coturn::PORT);
    TurnClient::new(offload.lab.client.udp_socket((addresses.client, 0).into()).unwrap(), listener)
}

fn echo(offload: &Offload, family: Family) -> Echo {
    let address = (offload.lab.addresses(family).peer, 0).into();
    Echo::start(offload.lab.peer.udp_socket(address).unwrap())
}

fn is_relayed_in_the_kernel(offload: &Offload, client: &mut TurnClient, channel: u16) {
    let before = offload.kernel_packets();
    let traffic = Traffic { stream: 1, sizes: 32..=1100, rate: 1000, duration: Duration::from_millis(500) };
    let report = traffic.round_trips(&mut Channel { client, number: channel }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    assert!(offload.kernel_packets() - before >= 2 * 450, "{:?}", offload.sessions());
}

#[test]
fn v6_1_every_pair_of_families_is_relayed_both_ways() {
    let offload = options().default_terms().start();
    for client_family in [Family::V4, Family::V6] {
        for relay_family in [Family::V4, Family::V6] {
            let mut client = client(&offload, client_family);
            let relayed = client.allocate(Some(relay_family), None).unwrap().relayed;
            let echo = echo(&offload, relay_family);
            offload.bind_and_arm(&mut client, CHANNEL, &echo);
            is_relayed_in_the_kernel(&offload, &mut client, CHANNEL);
            let session = offload.session(&client, CHANNEL).unwrap();
            assert_eq!((session.relayed, session.state.as_str()), (relayed, "kernel"), "{session:?}");
        }
    }
}

/// The family is the server's choice, and its answer alone says which it is (RFC 8656 section 7.2).
#[test]
fn al11_without_a_requested_family_the_answer_decides() {
    let offload = options().default_terms().start();
    for client_family in [Family::V4, Family::V6] {
        let mut client = client(&offload, client_family);
        let relayed = client.allocate(None, None).unwrap().relayed;
        let family = if relayed.is_ipv4() { Family::V4 } else { Family::V6 };
        offload.bind_and_arm(&mut client, CHANNEL, &echo(&offload, family));
        assert_eq!(offload.session(&client, CHANNEL).unwrap().relayed, relayed);
    }
}

#[test]
fn v6_2_a_peer_of_the_other_family_is_the_servers_to_refuse() {
    let offload = options().default_terms().start();
    for (relay_family, peer_family) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let mut client = client(&offload, Family::V4);
        client.allocate(Some(relay_family), None).unwrap();
        let refused = client.channel_bind(CHANNEL, echo(&offload, peer_family).address()).unwrap_err();
        assert_eq!(refused.code(), Some(443));
        // The server's answer to something later.
        client.refresh(600).unwrap();
        assert_eq!(offload.session(&client, CHANNEL), None);
    }
}

#[test]
fn al10_rf2_of_two_relayed_addresses_each_has_channels_and_an_end_of_its_own() {
    const CHANNEL_V6: u16 = CHANNEL + 1;
    let offload = options().default_terms().start();
    let mut client = client(&offload, Family::V4);
    let success = client.request(|client| {
        let request = client.builder(METHOD_ALLOCATE).attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        ADDITIONAL_ADDRESS_FAMILY.into_iter().fold(request, |request, kind| request.attribute(kind, &IPV6))
    });
    let success = success.unwrap();
    let relayed = success.attributes.iter().filter(|(kind, _)| *kind == XOR_RELAYED_ADDRESS);
    assert_eq!(relayed.count(), 2);
    let [v4, v6] = [Family::V4, Family::V6].map(|family| echo(&offload, family));
    offload.bind_and_arm(&mut client, CHANNEL, &v4);
    offload.bind_and_arm(&mut client, CHANNEL_V6, &v6);
    is_relayed_in_the_kernel(&offload, &mut client, CHANNEL);
    is_relayed_in_the_kernel(&offload, &mut client, CHANNEL_V6);

    let refresh = |client: &TurnClient| {
        client.builder(METHOD_REFRESH).lifetime(0).attribute(REQUESTED_ADDRESS_FAMILY, &IPV6)
    };
    client.request(refresh).unwrap();
    offload.wait_until_unbound(&client, CHANNEL_V6);
    is_relayed_in_the_kernel(&offload, &mut client, CHANNEL);
    assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "kernel");
}
