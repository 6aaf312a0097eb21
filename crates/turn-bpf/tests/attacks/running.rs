//! Attacks on a call that runs, and is to go on running in the kernel, or to end with the server's own.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use turn_testkit::datagram::receive;
use turn_testkit::offload::{PATIENCE, wait_until};
use turn_testkit::packet::Packet;
use turn_testkit::role::CLIENT_MAC;
use turn_testkit::turn_client::message::{
    Class, Credentials, METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_REFRESH, MessageBuilder,
    REQUESTED_TRANSPORT, random_transaction_id,
};
use turn_testkit::turn_client::{Received, TurnClient};
use turn_testkit::wire::mac;

use crate::forger::{Forger, channel_bind, hears_nothing, talk};
use crate::{CHANNEL, options};

const MOBILITY_TICKET: u16 = 0x8030;

/// Everything that would end the call if it came from the client and its server, from somebody else and in the client's name.
#[test]
fn a19_forged_deletions_tickets_and_rubbish_take_no_packet_out_of_the_kernel() {
    let offload = options().default_terms().coturn(&["--mobility"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let stranger = Credentials { username: "somebody".into(), ..client.credentials().clone() };
    let guess = Credentials { password: "guess".into(), ..client.credentials().clone() };
    let refresh = || MessageBuilder::new(METHOD_REFRESH, Class::Request).lifetime(0);
    let error = |method| MessageBuilder::new(method, Class::Error).attribute(9, &[0, 0, 4, 37]).build();
    let messages = [
        refresh().build(),
        refresh().credentials(&stranger).build(),
        refresh().credentials(&guess).build(),
        client.builder(METHOD_REFRESH).lifetime(0).broken_integrity().build(),
        refresh().attribute(MOBILITY_TICKET, b"a ticket").build(),
        client.builder(METHOD_REFRESH).attribute(MOBILITY_TICKET, b"a ticket").broken_integrity().build(),
        MessageBuilder::new(METHOD_REFRESH, Class::Success).lifetime(0).build(),
        error(METHOD_REFRESH),
        error(METHOD_CHANNEL_BIND),
        channel_bind(&client, random_transaction_id(), CHANNEL, client_address).broken_integrity().build(),
        b"rubbish".to_vec(),
        vec![0; 20],
        CHANNEL.to_be_bytes().to_vec(),
    ];
    let (no_lease, control) = (offload.count("no_lease"), offload.count("control"));
    for forger in [Forger::beside_client(&offload), Forger::beside_peer(&offload)] {
        for message in &messages {
            forger.send(client_address, listener, message);
        }
    }
    wait_until("the requests have been looked at", || offload.count("control") >= control + 14);
    offload.wait_until_all_is_read();
    // The server's answer to something later.
    client.drain().unwrap();
    client.create_permission(&[peer.local_addr().unwrap()]).unwrap();
    offload.assert_stays_in_the_kernel(&client, CHANNEL, no_lease);
}

/// A request that the server answered once is sent again: while what it asked for is still so, and when the channel has gone to another
/// peer since.
#[test]
fn a22_a_request_that_is_repeated_brings_nobody_anything() {
    let offload = options().coturn(&["--channel-lifetime=3", "--permission-lifetime=3"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let (old, new) = (offload.peer(), offload.peer());
    let (client_address, listener) = (client.address().unwrap(), offload.listener());
    let transaction = random_transaction_id();
    let request = channel_bind(&client, transaction, CHANNEL, old.local_addr().unwrap()).build();
    assert_eq!(client.exchange(&request).unwrap().error_code(), None);
    let bound = Instant::now();
    offload.arm_to_peer(&mut client, CHANNEL, &old);
    let forgers = [Forger::beside_client(&offload), Forger::beside_peer(&offload)];
    let repeat = |client: &mut TurnClient| {
        let mut answers = Vec::new();
        for forger in &forgers {
            forger.send(client_address, listener, &request);
            answers.push(client.receive_answer(transaction, PATIENCE).unwrap().unwrap().error_code());
        }
        offload.wait_until_all_is_read();
        answers
    };
    assert_eq!(repeat(&mut client), [None, None]);
    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((session.peer, session.state.as_str()), (old.local_addr().unwrap(), "mixed"));

    let mut is_bound = false;
    wait_until("the server has given the channel up", || {
        is_bound = is_bound || client.channel_bind(CHANNEL, new.local_addr().unwrap()).is_ok();
        is_bound || bound.elapsed() > PATIENCE
    });
    let _pumps = offload.steady(&mut client, CHANNEL, relayed, &new);
    while receive(&old, Duration::ZERO).unwrap().is_some() {}
    client.drain().unwrap();
    for answer in repeat(&mut client) {
        assert!(answer.is_some(), "the channel is bound to another peer");
    }
    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((session.peer, session.relayed), (new.local_addr().unwrap(), relayed));
    offload.wait_for_session(&client, CHANNEL, |now| {
        now.client_to_peer.kernel_packets > session.client_to_peer.kernel_packets + 20
    });
    hears_nothing(&old);
}

fn peers_payload(peer: &UdpSocket) -> Option<Vec<u8>> {
    receive(peer, PATIENCE).unwrap().map(|(payload, _)| payload)
}

/// In the name of a router, an error that quotes a packet of the call. A packet that fits the least MTU of IPv4 stays in the kernel, a
/// longer one goes to the server, and none is lost.
#[test]
fn a27_a_forged_small_mtu_loses_nothing() {
    let offload = options().default_terms().daemon(&["--heartbeat=50s", "--lease=60s"]).start();
    let (mut client, relayed) = offload.allocated_client();
    let (peer, other) = (offload.peer(), offload.peer());
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    offload.bind_and_arm_to_peer(&mut client, CHANNEL + 1, &other);
    let kernel_packets = |channel| offload.session(&client, channel).unwrap().client_to_peer.kernel_packets;
    let send = |channel, to: &UdpSocket, size: usize| {
        let before = kernel_packets(channel);
        client.send_channel_data(channel, &vec![size as u8; size], &[]).unwrap();
        assert_eq!(peers_payload(to), Some(vec![size as u8; size]), "{size} bytes");
        kernel_packets(channel) - before
    };
    for size in [500, 1000] {
        for (channel, to) in [(CHANNEL, &peer), (CHANNEL + 1, &other)] {
            // The first of its length goes to the server, which shows that it fits.
            send(channel, to, size);
            wait_until("the way is known to take as much", || send(channel, to, size) == 1);
        }
    }
    let sent = Packet::new(relayed, peer.local_addr().unwrap()).payload(&[7; 8]).build();
    let router = "198.18.2.77:0".parse().unwrap();
    let macs = (mac(&offload.lab.server, "srv1").unwrap(), CLIENT_MAC);
    let error = Packet::new(router, relayed).macs(macs.0, macs.1).too_big(68, &sent[14..]);
    let heard = offload.count("path_mtu");
    Forger::beside_peer(&offload).send_frame(&error);
    wait_until("it was heard", || offload.count("path_mtu") > heard);
    for _ in 0..20 {
        assert_eq!(send(CHANNEL, &peer, 500), 1, "552 bytes always fit");
        send(CHANNEL, &peer, 1000);
        assert_eq!(send(CHANNEL + 1, &other, 500), 1, "another call");
    }
    assert!(offload.count("longer_than_seen") > 0);
}

/// Whoever is in the way takes the server's answers out: what it did, it did, and the kernel does likewise.
#[test]
fn a30_answers_that_are_suppressed_leave_kernel_and_server_of_one_mind() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let (peer, second) = (offload.peer(), offload.peer());
    let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    client.drain().unwrap();
    // The first byte of a response.
    let rules = "add table inet suppress; add chain inet suppress in { type filter hook input priority 0; }; \
                 add rule inet suppress in udp sport 3478 @th,64,8 0x01 counter drop";
    offload.lab.client.run("nft", &[rules]).unwrap();

    let bind = channel_bind(&client, random_transaction_id(), CHANNEL + 1, second.local_addr().unwrap());
    client.send_raw(&bind.build()).unwrap();
    offload.wait_for_session(&client, CHANNEL + 1, |_| true);
    offload.arm_to_peer(&mut client, CHANNEL + 1, &second);

    client.send_raw(&client.builder(METHOD_REFRESH).lifetime(0).build()).unwrap();
    for channel in [CHANNEL, CHANNEL + 1] {
        offload.wait_until_unbound(&client, channel);
    }
    let (kernel, unknown) = (offload.kernel_packets(), offload.count("no_flow"));
    wait_until("both sides have gone on", || offload.count("no_flow") > unknown + 200);
    assert_eq!(offload.kernel_packets(), kernel);
    drop(pumps);
    let answer = client.receive_answer(bind.transaction_id(), Duration::from_millis(20)).unwrap();
    assert!(answer.is_none(), "{answer:?}");
}

/// Who has got hold of a client's ticket takes its allocation to another 5-tuple, if the server lets him: the kernel has no part in it, before
/// and after.
#[test]
fn a32_a_ticket_in_other_hands_moves_nothing_in_the_kernel() {
    let offload = options().coturn(&["--mobility"]).start();
    let mut client = offload.client();
    let allocated = client
        .request(|client| {
            let request = client.builder(METHOD_ALLOCATE);
            request.attribute(REQUESTED_TRANSPORT, &[17, 0, 0, 0]).attribute(MOBILITY_TICKET, &[])
        })
        .unwrap();
    let ticket = allocated.attribute(MOBILITY_TICKET).unwrap().to_vec();
    let peer = offload.peer();
    client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    talk(&client, CHANNEL, &peer);

    let mut insider = offload.client();
    let moved = insider.request(|client| client.builder(METHOD_REFRESH).attribute(MOBILITY_TICKET, &ticket));
    let (mut at_peer, mut at_clients) = (0, [0, 0]);
    for number in 0..20_u8 {
        insider.send_channel_data(CHANNEL, &[number; 40], &[]).unwrap();
        client.send_channel_data(CHANNEL, &[number; 41], &[]).unwrap();
        while let Some((_, relayed)) = receive(&peer, Duration::from_millis(20)).unwrap() {
            peer.send_to(&[number; 42], relayed).unwrap();
            at_peer += 1;
        }
        for (client, count) in [&mut insider, &mut client].into_iter().zip(&mut at_clients) {
            while let Some(received) = client.receive(Duration::from_millis(5)).unwrap() {
                *count += usize::from(matches!(received, Received::ChannelData { .. }));
            }
        }
    }
    println!("moved: {}, {at_peer} at the peer, {at_clients:?} at insider and client", moved.is_ok());
    offload.wait_until_all_is_read();
    assert_eq!((offload.sessions(), offload.kernel_packets()), (Vec::new(), 0));
    assert!(at_peer > 0, "somebody is heard, by way of the server");
}
