//! What is learned of a server's answers, and what is not.

use std::net::SocketAddr;
use std::time::Duration;

use turn_testkit::coturn::CoturnOptions;
use turn_testkit::datagram::receive;
use turn_testkit::lab::Family;
use turn_testkit::offload::PATIENCE;
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    Credentials, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, MessageBuilder, REQUESTED_TRANSPORT, XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
};

use crate::{CHANNEL, options};

/// EVEN-PORT (RFC 8656 section 18.7).
const EVEN_PORT: u16 = 0x0018;
/// RESERVATION-TOKEN (RFC 8656 section 18.10).
const RESERVATION_TOKEN: u16 = 0x0022;

fn allocate(client: &TurnClient) -> MessageBuilder {
    client.builder(METHOD_ALLOCATE).attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0])
}

/// Which numbers are channels is the server's to say (RFC 8656 section 12, RFC 5766 section 11).
#[test]
fn fr13_channel_numbers_are_what_the_server_takes_for_such() {
    let offload = options().start();
    let mut refused = 0;
    for channel in [0x3fff, 0x4000, 0x4fff, 0x5000, 0x7ffe, 0x7fff, 0x8000] {
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        match client.channel_bind(channel, echo.address()) {
            Ok(()) => {
                offload.wait_for_session(&client, channel, |_| true);
                offload.arm(&mut client, channel);
            }
            Err(error) => {
                assert_eq!(error.code(), Some(400), "{channel:#06x}");
                client.refresh(600).unwrap();
                assert_eq!(offload.session(&client, channel), None, "{channel:#06x}");
                refused += 1;
            }
        }
    }
    assert!(refused >= 2, "0x3fff and 0x8000 at the least");
}

/// A client may send data before it has the answer (RFC 8656 section 12).
#[test]
fn cb9_data_right_behind_the_request_arrive() {
    let offload = options().start();
    for _ in 0..20 {
        let (client, _) = offload.allocated_client();
        let peer = offload.peer();
        let request = client.builder(METHOD_CHANNEL_BIND).channel_number(CHANNEL);
        let request = request.xor_address(XOR_PEER_ADDRESS, peer.local_addr().unwrap());
        client.send_raw(&request.build()).unwrap();
        for number in 0..50_u8 {
            client.send_channel_data(CHANNEL, &[number; 100], &[]).unwrap();
        }
        for number in 0..50_u8 {
            let (payload, _) = receive(&peer, PATIENCE).unwrap().expect("a packet");
            assert_eq!(payload, [number; 100]);
        }
    }
}

/// A reserved port is not an allocation before somebody allocates it (RFC 8656 section 7.2), and any port may be a relayed one.
#[test]
fn al12_al13_reserved_and_low_ports_are_relayed_once_they_are_allocated() {
    let offload = options().coturn(&["--min-port=2000", "--max-port=2019"]).start();
    let mut first = offload.client();
    let success = first.request(|client| allocate(client).attribute(EVEN_PORT, &[0x80])).unwrap();
    let relayed = success.xor_address(XOR_RELAYED_ADDRESS).unwrap();
    let token = success.attribute(RESERVATION_TOKEN).expect("a token").to_vec();
    assert_eq!(relayed.port() % 2, 0);
    let (first_echo, second_echo) = (offload.echo(), offload.echo());
    offload.bind_and_arm(&mut first, CHANNEL, &first_echo);

    let reserved = SocketAddr::new(relayed.ip(), relayed.port() + 1);
    let before = offload.kernel_packets();
    // From an address that never gets a permission, since the server keeps what comes for the next owner.
    let stranger = (offload.lab.addresses(Family::V4).client, 0).into();
    let stranger = offload.lab.client.udp_socket(stranger).unwrap();
    stranger.send_to(b"nobody has it yet", reserved).unwrap();
    first.refresh(600).unwrap();
    assert_eq!(offload.kernel_packets(), before);
    assert_eq!(first.receive(Duration::from_millis(20)).unwrap(), None);

    let mut second = offload.client();
    let success = second.request(|client| allocate(client).attribute(RESERVATION_TOKEN, &token)).unwrap();
    assert_eq!(success.xor_address(XOR_RELAYED_ADDRESS), Some(reserved));
    offload.bind_and_arm(&mut second, CHANNEL, &second_echo);
    assert_eq!(offload.session(&second, CHANNEL).unwrap().relayed, reserved);
}

/// The server sends the client elsewhere (RFC 8656 section 7.2): there is nothing here to relay.
#[test]
fn x13_an_alternate_server_is_none_of_ours() {
    let mut offload = options().coturn(&["--alternate-server=198.18.2.2:3479"]).start();
    assert_eq!(offload.client().allocate(None, None).unwrap_err().code(), Some(300));
    assert_eq!(offload.daemon().status().unwrap().allocations, 0);
}

/// The right to have an allocation, and room for one (RFC 8656 section 7.2).
#[test]
fn x12_an_allocation_that_is_refused_is_none() {
    let mut offload = options().coturn(&["--user-quota=1"]).start();
    let (_first, _) = offload.allocated_client();
    assert_eq!(offload.client().allocate(None, None).unwrap_err().code(), Some(486));
    assert_eq!(offload.daemon().status().unwrap().allocations, 1);
}

/// Nothing is signed, in either direction (RFC 8656 section 7.2, RFC 8155).
#[test]
fn x8_x16_a_server_without_authentication_is_offloaded_like_any_other() {
    let mut offload = options().without_coturn().start();
    offload.serve(CoturnOptions::of(&offload.lab).open());
    let (mut client, _) = offload.allocated_client();
    assert!(client.credentials().nonce.is_empty(), "there was no challenge");
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
}

/// Who talks to whom is visible to the operator; under which name is in the log of ended sessions and in the document of sessions, and not
/// even there where the operator says so (RFC 8656 section 21.1.6).
#[test]
fn sc6_neither_documents_nor_log_name_the_user() {
    const USER: &str = "whistleblower";
    let mut offload =
        options().coturn(&["-u", "whistleblower:secret", "-v"]).daemon(&["--no-usernames"]).start();
    let mut client = offload.client();
    client.set_credentials(Credentials {
        username: USER.into(),
        password: "secret".into(),
        ..client.credentials().clone()
    });
    client.allocate(None, None).unwrap();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    client.refresh(0).unwrap();
    offload.wait_until_unbound(&client, CHANNEL);
    assert!(offload.coturn().log().contains(USER), "this is how it looks where it is told");
    let daemon = offload.daemon();
    for document in [daemon.document("status"), daemon.document("sessions")] {
        let document: serde_json::Value = document.unwrap();
        assert!(!document.to_string().contains(USER));
    }
    assert!(daemon.log().contains("198.18.1.2") && !daemon.log().contains(USER), "{}", daemon.log());
}
