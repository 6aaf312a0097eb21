//! What a peer sends is data, whatever its first bytes look like; and so is what a client sends to a peer.

use std::net::SocketAddr;

use turn_testkit::datagram::receive;
use turn_testkit::lab::Topology;
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::packet::channel_data;
use turn_testkit::traffic::{Carrier as _, Channel};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    Class, METHOD_ALLOCATE, METHOD_BINDING, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_DATA,
    METHOD_REFRESH, METHOD_SEND, MessageBuilder, XOR_MAPPED_ADDRESS, XOR_PEER_ADDRESS, XOR_RELAYED_ADDRESS,
};

use crate::{CHANNEL, options};

/// Everything that would mean something elsewhere: signed with the client's own key, and true to its addresses.
fn lookalikes(client: &TurnClient, relayed: SocketAddr, peer: SocketAddr) -> Vec<Vec<u8>> {
    let credentials = client.credentials();
    let message = |method, class| MessageBuilder::new(method, class).credentials(credentials).fingerprint();
    let address = client.address().unwrap();
    let mut payloads = vec![
        message(METHOD_CHANNEL_BIND, Class::Request)
            .channel_number(CHANNEL + 1)
            .xor_address(XOR_PEER_ADDRESS, peer)
            .build(),
        message(METHOD_CHANNEL_BIND, Class::Success).build(),
        message(METHOD_ALLOCATE, Class::Success)
            .xor_address(XOR_RELAYED_ADDRESS, relayed)
            .xor_address(XOR_MAPPED_ADDRESS, address)
            .lifetime(600)
            .build(),
        message(METHOD_REFRESH, Class::Request).lifetime(0).build(),
        message(METHOD_REFRESH, Class::Success).lifetime(0).build(),
        message(METHOD_REFRESH, Class::Error).attribute(9, &[0, 0, 4, 37]).build(),
        message(METHOD_CREATE_PERMISSION, Class::Request).xor_address(XOR_PEER_ADDRESS, peer).build(),
        message(METHOD_SEND, Class::Indication).xor_address(XOR_PEER_ADDRESS, peer).build(),
        message(METHOD_DATA, Class::Indication).xor_address(XOR_PEER_ADDRESS, peer).build(),
        MessageBuilder::new(METHOD_BINDING, Class::Request).build(),
        channel_data(CHANNEL, b"as if on the bound channel", &[]),
        channel_data(CHANNEL, b"as if padded", &[0, 0]),
        channel_data(CHANNEL + 1, b"as if on another", &[]),
        [&CHANNEL.to_be_bytes()[..], &[0xff, 0xff, 1, 2]].concat(),
        CHANNEL.to_be_bytes().to_vec(),
    ];
    // First bytes by which protocols on one port are told apart (RFC 9443 section 3): DTLS, RTP, and QUIC's long and short headers,
    // among them those in the range of channel numbers.
    let first_bytes = [0_u8, 3, 16, 19, 20, 22, 25, 63, 64, 79, 80, 127, 128, 191, 192, 0xc3, 255];
    payloads
        .extend(first_bytes.map(|first| (0..60).map(|at: u8| if at == 0 { first } else { at }).collect()));
    payloads.push(Vec::new());
    payloads
}

/// One payload to the peer and one back.
fn exchange(client: &mut TurnClient, relayed: SocketAddr, peer: &std::net::UdpSocket, payload: &[u8]) {
    let mut channel = Channel { client, number: CHANNEL };
    channel.send(payload).unwrap();
    assert_eq!(receive(peer, PATIENCE).unwrap(), Some((payload.to_vec(), relayed)), "{payload:02x?}");
    peer.send_to(payload, relayed).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap().as_deref(), Some(payload), "{payload:02x?}");
}

fn known(offload: &mut Offload) -> (u64, u64, usize) {
    let status = offload.daemon().status().unwrap();
    (status.allocations, status.bindings, offload.sessions().len())
}

#[test]
fn lookalikes_are_relayed_in_the_kernel_as_they_are_and_mean_nothing() {
    for (topology, mode) in [(Topology::One, "native"), (Topology::Two, "native"), (Topology::Two, "generic")]
    {
        for (client_family, peer_family) in crate::FAMILY_PAIRS {
            // No heartbeat in between, so that it is known which packets the kernel relays.
            let mut offload = options()
                .topology(topology)
                .mode(mode)
                .default_terms()
                .daemon(&["--heartbeat=50s", "--lease=60s"])
                .start();
            let (mut client, relayed) = offload.allocated_client_of(client_family, peer_family);
            let peer = offload.peer_of(peer_family);
            offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
            exchange(&mut client, relayed, &peer, b"arms the way back");
            offload.wait_for_session(&client, CHANNEL, |row| row.state == "kernel");
            let (known_before, kernel) = (known(&mut offload), offload.kernel_packets());
            let payloads = lookalikes(&client, relayed, peer.local_addr().unwrap());
            for payload in &payloads {
                exchange(&mut client, relayed, &peer, payload);
            }
            assert_eq!(offload.kernel_packets() - kernel, 2 * payloads.len() as u64);
            assert_eq!(known(&mut offload), known_before);
            assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "kernel");
        }
    }
}

/// The same by way of the server, where both programs see it: nothing is learned from what leaves a relayed transport address.
#[test]
fn lookalikes_that_the_server_relays_mean_nothing_either() {
    let mut offload = options().start_without_daemon();
    let (mut old, old_relayed) = offload.allocated_client();
    let old_peer = offload.peer();
    old.channel_bind(CHANNEL, old_peer.local_addr().unwrap()).unwrap();
    offload.start_daemon();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let before = known(&mut offload);
    assert_eq!(before, (1, 0, 0));
    // One client without a flow, since its binding is older than turn-bpf.
    let payloads = lookalikes(&old, old_relayed, old_peer.local_addr().unwrap());
    for payload in &payloads {
        exchange(&mut old, old_relayed, &old_peer, payload);
    }
    assert_eq!((known(&mut offload), offload.kernel_packets()), (before, 0));

    // And one with a flow that is about to be armed.
    client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    offload.wait_for_session(&client, CHANNEL, |_| true);
    let before = known(&mut offload);
    for payload in lookalikes(&client, relayed, peer.local_addr().unwrap()) {
        exchange(&mut client, relayed, &peer, &payload);
    }
    assert_eq!(known(&mut offload), before);
}
