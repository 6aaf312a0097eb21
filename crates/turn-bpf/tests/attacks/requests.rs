//! Forged and odd ChannelBind requests.

use std::time::Duration;

use rustix::process::Signal;
use turn_testkit::datagram::receive;
use turn_testkit::offload::wait_until;
use turn_testkit::turn_client::TurnClient;
use turn_testkit::turn_client::message::{
    Class, METHOD_CHANNEL_BIND, MessageBuilder, XOR_PEER_ADDRESS, random_transaction_id,
};

use crate::forger::{Forger, channel_bind, hears_nothing, talk};
use crate::{CHANNEL, options};

#[test]
fn a1_a_request_without_success_teaches_nothing() {
    let mut offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let (peer, attacker) = (offload.peer(), offload.peer());
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let attacker_address = attacker.local_addr().unwrap();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let forgers = [Forger::beside_client(&offload), Forger::beside_peer(&offload)];
    let seen = offload.count("control");
    for forger in &forgers {
        for channel in [CHANNEL, 0x4002] {
            let unsigned = MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Request)
                .channel_number(channel)
                .xor_address(XOR_PEER_ADDRESS, attacker_address);
            let signed = channel_bind(&client, random_transaction_id(), channel, attacker_address);
            for request in [unsigned, signed.broken_integrity()] {
                forger.send(client_address, listener, &request.build());
            }
        }
    }
    wait_until("all have been looked at", || offload.count("control") == seen + 8);
    // An answer to something later, so that the server has seen them all.
    client.create_permission(&[peer.local_addr().unwrap()]).unwrap();
    assert_eq!(offload.sessions().len(), 1);
    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((session.peer, session.state.as_str()), (peer.local_addr().unwrap(), "mixed"));
    talk(&client, CHANNEL, &peer);
    client.send_channel_data(0x4002, b"to nobody", &[]).unwrap();
    hears_nothing(&attacker);
    assert_eq!(offload.daemon().status().unwrap().allocations, 1);
}

/// In every order of forged and genuine requests under one transaction id, with the answers between them or all behind them.
#[test]
fn a2_a_transaction_id_used_twice_never_binds_the_forged_peer() {
    let mut offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let attacker = offload.peer();
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let attacker_address = attacker.local_addr().unwrap();
    let forgers = [Forger::beside_client(&offload), Forger::beside_peer(&offload)];
    let mut channel = 0x4000;
    let mut learned = Vec::new();
    for order in ["FG", "GF", "FFG", "FGF", "GFF", "GGF", "GFG", "FGG"] {
        for answers_between in [true, false] {
            let forger = &forgers[usize::from(channel % 4 < 2)];
            let (peer, transaction) = (offload.peer(), random_transaction_id());
            let peer_address = peer.local_addr().unwrap();
            let genuine = channel_bind(&client, transaction, channel, peer_address).build();
            let forged =
                channel_bind(&client, transaction, channel, attacker_address).broken_integrity().build();
            if !answers_between {
                offload.coturn().process().signal(Signal::STOP).unwrap();
            }
            let mut answers = Vec::new();
            let mut answer = |client: &mut TurnClient| {
                let message = client.receive_answer(transaction, Duration::from_secs(5)).unwrap();
                answers.push(message.expect("an answer").error_code());
            };
            for request in order.bytes() {
                match request {
                    b'F' => forger.send(client_address, listener, &forged),
                    _ => client.send_raw(&genuine).unwrap(),
                }
                if answers_between {
                    answer(&mut client);
                }
            }
            if !answers_between {
                offload.coturn().process().signal(Signal::CONT).unwrap();
                order.bytes().for_each(|_| answer(&mut client));
            }
            let what = format!("{order}, {answers_between}: {answers:?}");
            assert!(answers.contains(&None) && answers.contains(&Some(401)), "{what}");

            offload.wait_until_all_is_read();
            talk(&client, channel, &peer);
            let session = offload.session(&client, channel);
            if session.is_some() {
                learned.push((order, answers_between));
            }
            assert!(session.is_none_or(|session| session.peer == peer_address), "{what}");
            assert!(offload.sessions().iter().all(|session| session.peer != attacker_address), "{what}");
            channel += 1;
        }
    }
    hears_nothing(&attacker);
    // Two contents under one transaction id are never believed, not even the right one.
    assert_eq!(learned, []);
}

#[test]
fn a5_attributes_behind_the_message_integrity_are_not_believed() {
    let offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let (peer, attacker) = (offload.peer(), offload.peer());
    let request = channel_bind(&client, random_transaction_id(), CHANNEL, peer.local_addr().unwrap())
        .xor_address_after_integrity(XOR_PEER_ADDRESS, attacker.local_addr().unwrap());
    assert_eq!(client.exchange(&request.build()).unwrap().error_code(), None);
    for number in 0..20_u8 {
        client.send_channel_data(CHANNEL, &[number; 40], &[]).unwrap();
        // coturn 4.6 believes what stands behind, which is its own affair: the kernel then has no part in it.
        let [at_peer, at_attacker] =
            [&peer, &attacker].map(|socket| receive(socket, Duration::from_millis(20)).unwrap().is_some());
        assert!(at_peer != at_attacker);
        let session = offload.session(&client, CHANNEL);
        assert!(session.as_ref().is_none_or(|session| session.peer == peer.local_addr().unwrap()));
        if at_attacker {
            assert_eq!(offload.kernel_packets(), 0, "{session:?}");
        }
    }
}

/// The server takes one of two peers, and another parser may take the other.
#[test]
fn a7_a_request_with_two_peers_is_left_to_the_server() {
    let offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let peers = [offload.peer(), offload.peer()];
    let addresses = peers.each_ref().map(|peer| peer.local_addr().unwrap());
    for (channel, [first, second]) in [(0x4001, addresses), (0x4002, [addresses[1], addresses[0]])] {
        let request = channel_bind(&client, random_transaction_id(), channel, first)
            .xor_address(XOR_PEER_ADDRESS, second)
            .build();
        let answer = client.exchange(&request).unwrap();
        for _ in 0..20 {
            client.send_channel_data(channel, &[7; 40], &[]).unwrap();
        }
        // A round trip to the server behind them.
        client.create_permission(&addresses).unwrap();
        assert_eq!(offload.session(&client, channel), None, "{:?}", answer.error_code());
    }
    assert_eq!(offload.kernel_packets(), 0);
}
