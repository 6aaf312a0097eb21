//! Several clients, several channels each, and traffic that goes one way only.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use turn_testkit::offload::{PATIENCE, wait_until};
use turn_testkit::traffic::{Channel, Datagrams, Echo, Numbered, Sink, Traffic};
use turn_testkit::turn_client::Received;

use crate::{CHANNEL, options};

const PACKETS: u64 = 300;

/// Every client uses the same channel numbers, and two of three peers talk to all clients.
#[test]
fn clients_and_channels_do_not_mix() {
    let offload = options().default_terms().start();
    let echoes: [Echo; 3] = std::array::from_fn(|_| offload.echo());
    let mut clients: Vec<_> = (0..3).map(|_| offload.allocated_client().0).collect();
    let own: Vec<Echo> = clients.iter().map(|_| offload.echo()).collect();
    let channels = [0x4000, 0x4001, 0x4ffe];
    let mut sent = HashMap::new();
    for (client, own) in clients.iter_mut().zip(&own) {
        for (channel, echo) in channels.into_iter().zip([&echoes[0], &echoes[1], own]) {
            let packets = offload.bind_and_arm(client, channel, echo);
            sent.insert((client.address().unwrap(), channel), packets);
        }
    }
    assert_eq!(offload.sessions().len(), 9);

    let mut expected = HashSet::new();
    let mut seen = HashSet::new();
    for number in 0..PACKETS {
        for (index, client) in clients.iter_mut().enumerate() {
            for channel in channels {
                let stream = (index as u32) << 16 | u32::from(channel);
                let payload = Numbered { stream, number, sent: Duration::ZERO }.encode(200);
                client.send_channel_data(channel, &payload, &[]).unwrap();
                expected.insert((stream, number));
            }
        }
        for (index, client) in clients.iter_mut().enumerate() {
            let patience = if number + 1 == PACKETS { Duration::from_secs(1) } else { Duration::ZERO };
            while expected.len() > seen.len()
                && let Some(received) = client.receive(patience).unwrap()
            {
                let Received::ChannelData { channel, data, .. } = received else { panic!("{received:?}") };
                let packet = Numbered::decode(&data).unwrap();
                assert_eq!(packet.stream, (index as u32) << 16 | u32::from(channel));
                assert!(seen.insert((packet.stream, packet.number)), "a duplicate: {packet:?}");
            }
        }
    }
    assert_eq!(seen.len(), expected.len());

    for session in offload.sessions() {
        let number = u16::from_str_radix(session.channel.trim_start_matches("0x"), 16).unwrap();
        let total = sent[&(session.client, number)] + PACKETS;
        assert_eq!((session.client_to_peer.packets(), session.peer_to_client.packets()), (total, total));
        assert!(session.client_to_peer.kernel_packets > PACKETS / 2, "{session:?}");
        assert!(session.peer_to_client.kernel_packets > PACKETS / 2, "{session:?}");
    }
}

#[test]
fn from_client_to_peer_only() {
    let offload = options().default_terms().start();
    let (mut client, _) = offload.allocated_client();
    let peer = offload.peer();
    let before = offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let sink = Sink::start(peer, 1);
    let traffic = Traffic { stream: 1, sizes: 100..=300, rate: 2000, duration: Duration::from_secs(1) };
    let sent = traffic.one_way(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    sink.wait_for(sent, PATIENCE).verify(sent).unwrap();

    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((session.state.as_str(), session.reason.as_deref()), ("mixed", Some("no_traffic")));
    assert_eq!(session.client_to_peer.packets(), before + sent);
    assert!(session.client_to_peer.kernel_packets >= sent * 95 / 100, "{session:?}");
    assert_eq!(session.peer_to_client.packets(), 0);
}

#[test]
fn from_peer_to_client_only() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    client.channel_bind(CHANNEL, peer.local_addr().unwrap()).unwrap();
    offload.wait_for_session(&client, CHANNEL, |_| true);
    let traffic = Traffic { stream: 1, sizes: 100..=300, rate: 2000, duration: Duration::from_secs(1) };
    let sender = std::thread::spawn(move || {
        traffic.one_way(&mut Datagrams { socket: peer, remote: relayed }).unwrap()
    });
    let mut numbers = HashSet::new();
    // The socket's buffer does not hold them all.
    while let Some(received) = client.receive(Duration::from_secs(1)).unwrap() {
        let Received::ChannelData { channel: CHANNEL, data, .. } = received else { panic!("{received:?}") };
        assert!(numbers.insert(Numbered::decode(&data).unwrap().number), "a duplicate");
    }
    let sent = sender.join().unwrap();
    assert_eq!(numbers.len() as u64, sent);

    let session = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((session.state.as_str(), session.reason.as_deref()), ("mixed", Some("no_traffic")));
    assert_eq!(session.peer_to_client.packets(), sent);
    assert!(session.peer_to_client.kernel_packets >= sent * 90 / 100, "{session:?}");
    assert_eq!(session.client_to_peer.packets(), 0);
}

/// Toward the peer they differ in the relayed transport address alone, and on the way back too.
#[test]
fn two_allocations_to_one_peer_answer_to_their_own_addresses() {
    let offload = options().start();
    let echo = offload.echo();
    let (mut first, first_relayed) = offload.allocated_client();
    let (mut second, second_relayed) = offload.allocated_client();
    assert_ne!(first_relayed, second_relayed);
    offload.bind_and_arm(&mut first, CHANNEL, &echo);
    offload.bind_and_arm(&mut second, CHANNEL, &echo);
    let load =
        |stream| Traffic { stream, sizes: 100..=100, rate: 1000, duration: Duration::from_millis(500) };
    for (client, stream) in [(&mut first, 1), (&mut second, 2)] {
        let report = load(stream).round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));
    }
    wait_until("both are in the kernel's hands", || {
        offload.sessions().iter().filter(|session| session.state == "kernel").count() == 2
    });
}
