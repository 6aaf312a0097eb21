//! Forged responses.

use std::net::SocketAddr;

use turn_testkit::lab::Family;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::packet::channel_data;
use turn_testkit::turn_client::message::{
    Class, LIFETIME, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_REFRESH, MessageBuilder, TransactionId,
    XOR_MAPPED_ADDRESS, XOR_RELAYED_ADDRESS, random_transaction_id,
};

use crate::forger::{Forger, channel_bind, hears_nothing, talk};
use crate::{CHANNEL, options};

fn allocate_success(relayed: SocketAddr, client: SocketAddr) -> Vec<u8> {
    MessageBuilder::new(METHOD_ALLOCATE, Class::Success)
        .xor_address(XOR_RELAYED_ADDRESS, relayed)
        .xor_address(XOR_MAPPED_ADDRESS, client)
        .attribute(LIFETIME, &600_u32.to_be_bytes())
        .build()
}

fn channel_bind_success(transaction: TransactionId) -> Vec<u8> {
    MessageBuilder::new(METHOD_CHANNEL_BIND, Class::Success).transaction(transaction).build()
}

/// How many allocations and channel bindings turn-bpf knows.
fn learned(offload: &mut Offload) -> (u64, u64) {
    let status = offload.daemon().status().unwrap();
    (status.allocations, status.bindings)
}

#[test]
fn a11_responses_that_arrive_are_not_the_servers() {
    let mut offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let (peer, attacker) = (offload.peer(), offload.peer());
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let attacker_address = attacker.local_addr().unwrap();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let other_client = SocketAddr::new(client_address.ip(), 40_001);
    let other_relayed = SocketAddr::new(relayed.ip(), 40_002);
    let passed = offload.daemon().status().unwrap().packets.passed;
    let mut sent = 0;
    for forger in [Forger::beside_client(&offload), Forger::beside_peer(&offload)] {
        let transaction = random_transaction_id();
        let claim = channel_bind(&client, transaction, 0x4002, attacker_address).broken_integrity();
        let refreshed = MessageBuilder::new(METHOD_REFRESH, Class::Success).lifetime(0).build();
        forger.send(client_address, listener, &claim.build());
        for (destination, response) in [
            (client_address, channel_bind_success(transaction)),
            (client_address, refreshed),
            (client_address, allocate_success(other_relayed, client_address)),
            (other_client, allocate_success(relayed, other_client)),
            (other_client, allocate_success(other_relayed, other_client)),
        ] {
            forger.send(listener, destination, &response);
        }
        sent += 6;
    }
    wait_until("all have been looked at", || {
        offload.daemon().status().unwrap().packets.passed >= passed + sent
    });
    client.create_permission(&[peer.local_addr().unwrap()]).unwrap();
    assert_eq!(learned(&mut offload), (1, 1));
    assert_eq!(offload.session(&client, CHANNEL).unwrap().state, "mixed");
    talk(&client, CHANNEL, &peer);
    hears_nothing(&attacker);
}

/// A client can have the server send any bytes from its relayed transport address.
#[test]
fn a12_responses_from_a_relayed_address_are_not_the_servers() {
    let mut offload = options().default_terms().start();
    let (mut victim, victim_relayed) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut victim, CHANNEL, &peer);
    let (mut insider, insider_relayed) = offload.allocated_client();
    let accomplice = offload.peer();
    let accomplice_address = accomplice.local_addr().unwrap();
    let attacker = offload.peer();
    let victim_address = victim.address().unwrap();
    insider.create_permission(&[accomplice_address, victim_address]).unwrap();
    let known = learned(&mut offload);

    // The accomplice claims a channel at the insider's relayed transport address, and the insider has it confirmed from there.
    let transaction = random_transaction_id();
    let claim = channel_bind(&victim, transaction, 0x4003, attacker.local_addr().unwrap()).build();
    accomplice.send_to(&claim, insider_relayed).unwrap();
    for target in [accomplice_address, victim_address] {
        for bytes in [
            allocate_success(victim_relayed, target),
            allocate_success(SocketAddr::new(victim_relayed.ip(), 40_002), target),
            channel_bind_success(transaction),
            MessageBuilder::new(METHOD_REFRESH, Class::Success).lifetime(0).build(),
        ] {
            insider.send_indication(target, &bytes).unwrap();
        }
    }
    accomplice.send_to(&channel_data(0x4003, b"to the attacker", &[]), insider_relayed).unwrap();
    // The server's answer to something later.
    insider.create_permission(&[accomplice_address]).unwrap();
    assert_eq!(learned(&mut offload), known);
    assert_eq!(offload.session(&victim, CHANNEL).unwrap().state, "mixed");
    talk(&victim, CHANNEL, &peer);
    hears_nothing(&attacker);
}

/// Of a client's allocation over TLS turn-bpf sees nothing, so that it does not know the relayed transport address, from which the
/// client has the server send what it likes. A socket stands for that; and the same is believed where a server is said to listen.
#[test]
fn a12_responses_from_an_unknown_relayed_address_are_not_the_servers() {
    for (arguments, is_learned) in [
        (&["--eager"][..], 0),
        (&["--eager", "--join"], 0),
        (&["--eager", "--listening-port", "3478,50001"], 1),
    ] {
        let mut offload = options().default_terms().daemon(arguments).start();
        let (victim, _) = offload.allocated_client();
        let (accomplice, target) = (offload.peer(), offload.peer());
        let accomplice_address = accomplice.local_addr().unwrap();
        let ip = offload.lab.addresses(Family::V4).relay;
        let insider_relayed = offload.lab.server.udp_socket((ip, 50_001).into()).unwrap();
        let transaction = random_transaction_id();
        let claim = channel_bind(&victim, transaction, 0x4003, target.local_addr().unwrap()).build();
        let has_relayed = allocate_success(SocketAddr::new(ip, 40_002), accomplice_address);
        insider_relayed.send_to(&has_relayed, accomplice_address).unwrap();
        offload.wait_until_all_is_read();
        accomplice.send_to(&claim, insider_relayed.local_addr().unwrap()).unwrap();
        offload.wait_until_all_is_read();
        insider_relayed.send_to(&channel_bind_success(transaction), accomplice_address).unwrap();
        offload.wait_until_all_is_read();
        assert_eq!(learned(&mut offload), (1 + is_learned, is_learned), "{arguments:?}");
        assert_eq!(offload.log().contains("name the port: --listening-port"), is_learned == 0);
    }
}
