//! `--eager`: relayed from the moment that the channel is bound, before the server was seen relaying anything.

use std::time::Duration;

use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::turn_client::Received;

use crate::{CHANNEL, options};

/// What the kernel relayed and what the server got of the first packet in each direction.
fn first_packets(offload: &mut Offload) -> [(u64, u64); 2] {
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    // The server knows its neighbours only once it has sent something to the peer.
    client.create_permission(&[echo.address()]).unwrap();
    client.send_indication(echo.address(), b"hello").unwrap();
    assert!(matches!(client.receive(PATIENCE).unwrap(), Some(Received::DataIndication { .. })));

    client.channel_bind(CHANNEL, echo.address()).unwrap();
    offload.wait_for_session(&client, CHANNEL, |_| true);
    client.send_channel_data(CHANNEL, b"first", b"").unwrap();
    let back = client.receive(PATIENCE).unwrap();
    assert!(
        matches!(&back, Some(Received::ChannelData { channel: CHANNEL, data, .. }) if data == b"first"),
        "{back:?}"
    );
    let session = offload.session(&client, CHANNEL).unwrap();
    [session.client_to_peer, session.peer_to_client].map(|way| (way.kernel_packets, way.spilled_packets))
}

#[test]
fn the_first_packet_is_relayed_in_the_kernel() {
    for mode in ["native", "tc", "generic"] {
        let mut offload = options().mode(mode).daemon(&["--eager"]).start();
        assert_eq!(first_packets(&mut offload), [(1, 0), (1, 0)], "{mode}");
    }
}

#[test]
fn without_it_the_first_packet_goes_through_the_server() {
    let mut offload = options().start();
    assert_eq!(first_packets(&mut offload), [(0, 1), (0, 1)]);
}

/// The lease of a head start is renewed like any other, and ends like any other.
#[test]
fn a_head_start_holds_for_one_lease() {
    let mut offload =
        options().terms(Duration::from_millis(300), Duration::from_secs(1)).daemon(&["--eager"]).start();
    assert_eq!(first_packets(&mut offload), [(1, 0), (1, 0)]);
    offload.take_coturn().kill().unwrap();
    wait_until("all leases are over", || {
        offload.sessions().iter().all(|session| session.state == "userspace")
    });
}
