//! Handshakes while data flow: they are the server's, and the data stay in the kernel.

use std::time::Instant;

use turn_testkit::lab::Family;
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_REFRESH, XOR_PEER_ADDRESS,
};

use crate::{CHANNEL, options};

fn stays_in_the_kernel(offload: &Offload, client: &mut TurnClient, act: impl FnOnce(&mut TurnClient)) {
    let no_lease = offload.count("no_lease");
    client.drain().unwrap();
    act(client);
    offload.assert_stays_in_the_kernel(client, CHANNEL, no_lease);
}

#[test]
fn rf4_a_refresh_takes_no_packet_out_of_the_kernel() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    for lifetime in [600, 700, 3600] {
        stays_in_the_kernel(&offload, &mut client, |client| {
            client.refresh(lifetime).unwrap();
            client.create_permission(&[peer.local_addr().unwrap()]).unwrap();
        });
    }
}

/// RFC 8656 section 5: a nonce expires, and the client repeats its request with a new one.
#[test]
fn x14_a_stale_nonce_takes_no_packet_out_of_the_kernel() {
    let offload = options().default_terms().coturn(&["--stale-nonce=1"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    stays_in_the_kernel(&offload, &mut client, |client| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            client.drain().unwrap();
            let request = client.builder(METHOD_CHANNEL_BIND).channel_number(CHANNEL);
            let request = request.xor_address(XOR_PEER_ADDRESS, peer.local_addr().unwrap());
            let answer = client.exchange(&request.build()).unwrap();
            if answer.error_code() == Some(438) {
                break;
            }
            assert!(Instant::now() < deadline, "the nonce never expires");
        }
        client.drain().unwrap();
        client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    });
}

/// Whoever sends it: 401, 400, 443 and 437 say nothing about what is bound already (RFC 8656 sections 7.2, 10.2 and 12.2).
#[test]
fn x9_errors_take_no_packet_out_of_the_kernel() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let (peer, other) = (offload.peer(), offload.peer());
    let (peer_address, other_address) = (peer.local_addr().unwrap(), other.local_addr().unwrap());
    let v6 = (offload.lab.addresses(Family::V6).peer, 5000).into();
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    stays_in_the_kernel(&offload, &mut client, |client| {
        let refresh = client.builder(METHOD_REFRESH).lifetime(0).broken_integrity();
        let bind = |channel, peer| {
            let request = client.builder(METHOD_CHANNEL_BIND).channel_number(channel);
            request.xor_address(XOR_PEER_ADDRESS, peer)
        };
        let permission = client.builder(METHOD_CREATE_PERMISSION).xor_address(XOR_PEER_ADDRESS, v6);
        let requests = [
            (refresh, 401),
            (bind(CHANNEL, peer_address).broken_integrity(), 401),
            (bind(CHANNEL, other_address), 400),
            (bind(CHANNEL + 1, peer_address), 400),
            (bind(CHANNEL + 1, v6), 443),
            (permission, 443),
        ];
        for (request, code) in requests {
            client.drain().unwrap();
            assert_eq!(client.exchange(&request.build()).unwrap().error_code(), Some(code));
        }
        client.drain().unwrap();
        assert_eq!(client.allocate(None, None).unwrap_err().code(), Some(437), "it has one");
    });
}
