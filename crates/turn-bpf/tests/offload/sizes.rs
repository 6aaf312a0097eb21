//! Payloads of every odd size.

use std::time::Duration;

use turn_testkit::datagram::receive;
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::traffic::{Carrier as _, Channel};
use turn_testkit::turn_client::TurnClient;

use crate::{CHANNEL, options};

/// Longer than any test, so that it is known which packets the kernel relays.
const NO_HEARTBEAT: Duration = Duration::from_secs(50);
const LEASE: Duration = Duration::from_secs(60);
/// IPv4 and UDP headers within the lab's MTU of 1500 bytes.
const MOST: usize = 1500 - 28;
/// The same with the ChannelData header.
const MOST_CHANNEL_DATA: usize = MOST - 4;

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|at| (size + at * 7) as u8).collect()
}

fn relayed_in_kernel(offload: &Offload, client: &TurnClient) -> (u64, u64) {
    let session = offload.session(client, CHANNEL).unwrap();
    (session.client_to_peer.kernel_packets, session.peer_to_client.kernel_packets)
}

/// Has the server send the longest packet in both directions, so that it is known that shorter ones need not be cut.
fn see_longest(client: &mut TurnClient) {
    let mut channel = Channel { client, number: CHANNEL };
    channel.send(&payload(MOST_CHANNEL_DATA)).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap(), Some(payload(MOST_CHANNEL_DATA)));
}

#[test]
fn from_nothing_to_the_mtu() {
    for mode in ["native", "generic"] {
        let offload = options().mode(mode).terms(NO_HEARTBEAT, LEASE).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        see_longest(&mut client);
        let before = relayed_in_kernel(&offload, &client);
        let sizes = (0..=70).chain([576, 1199, 1200, 1201]).chain(1430..=MOST_CHANNEL_DATA);
        let mut count = 0;
        for size in sizes {
            let mut channel = Channel { client: &mut client, number: CHANNEL };
            channel.send(&payload(size)).unwrap();
            assert_eq!(channel.receive(PATIENCE).unwrap(), Some(payload(size)), "{size} bytes, {mode}");
            count += 1;
        }
        let after = relayed_in_kernel(&offload, &client);
        assert_eq!((after.0 - before.0, after.1 - before.1), (count, count), "{mode}");
    }
}

/// What the peer sends in one piece fits only in two with the ChannelData header: that is the server's business.
#[test]
fn what_does_not_fit_with_a_channel_data_header_is_left_to_the_server() {
    let offload = options().default_terms().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let mut channel = Channel { client: &mut client, number: CHANNEL };
    peer.send_to(&payload(100), relayed).unwrap();
    assert_eq!(channel.receive(PATIENCE).unwrap(), Some(payload(100)));
    offload.wait_for_session(channel.client, CHANNEL, |session| session.state == "kernel");

    for size in MOST_CHANNEL_DATA + 1..=MOST {
        peer.send_to(&payload(size), relayed).unwrap();
        assert_eq!(channel.receive(PATIENCE).unwrap(), Some(payload(size)), "{size} bytes to the client");
        channel.send(&payload(size)).unwrap();
        let received = receive(&peer, PATIENCE).unwrap();
        assert_eq!(received, Some((payload(size), relayed)), "{size} bytes to the peer");
    }
    assert_eq!(offload.count("too_big"), 4);
    // Each in two fragments, at least.
    assert!(offload.count("fragment") >= 8);
    assert_eq!(relayed_in_kernel(&offload, &client), (0, 0));
}

#[test]
fn padding_is_taken_off_and_anything_else_is_left_to_the_server() {
    let offload = options().terms(NO_HEARTBEAT, LEASE).start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    offload.bind_and_arm_to_peer(&mut client, CHANNEL, &peer);
    let before = relayed_in_kernel(&offload, &client).0;
    let mut padded = 0;
    for size in 0..=9_usize {
        let padding = vec![0xee; size.next_multiple_of(4) - size];
        client.send_channel_data(CHANNEL, &payload(size), &padding).unwrap();
        assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((payload(size), relayed)), "{size} bytes");
        padded += 1;
    }
    assert_eq!(relayed_in_kernel(&offload, &client).0 - before, padded);

    let before = relayed_in_kernel(&offload, &client).0;
    for (size, padding) in [(8, 4), (5, 1), (5, 2), (5, 7), (100, 1400 - 100)] {
        let what = format!("{size} bytes and {padding} behind them");
        let wrong = offload.count("channel_data_length");
        client.send_channel_data(CHANNEL, &payload(size), &vec![0xee; padding]).unwrap();
        // coturn relays the declared length.
        assert_eq!(receive(&peer, PATIENCE).unwrap(), Some((payload(size), relayed)), "{what}");
        assert_eq!(offload.count("channel_data_length"), wrong + 1, "{what}");
    }
    // Longer than the datagram: the server drops it.
    client.send_raw(&[&CHANNEL.to_be_bytes()[..], &[0, 9, 1, 2, 3]].concat()).unwrap();
    assert_eq!(receive(&peer, Duration::from_millis(200)).unwrap(), None);
    assert_eq!(offload.count("channel_data_length"), 6);
    assert_eq!(relayed_in_kernel(&offload, &client).0, before);
}
