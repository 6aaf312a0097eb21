//! `--eager`: relayed from the moment that the channel is bound, before the server was seen relaying anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::traffic::{Carrier as _, Channel, Echo};
use turn_testkit::turn_client::{Received, TurnClient};

use crate::{CHANNEL, options};

/// The server knows its neighbours only once it has sent something to the peer.
fn introduce(client: &mut TurnClient, echo: &Echo) {
    client.create_permission(&[echo.address()]).unwrap();
    client.send_indication(echo.address(), b"hello").unwrap();
    assert!(matches!(client.receive(PATIENCE).unwrap(), Some(Received::DataIndication { .. })));
}

/// What the kernel relayed and what the server got of the first packet in each direction.
fn first_packets(offload: &mut Offload) -> [(u64, u64); 2] {
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    introduce(&mut client, &echo);
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

/// Of calls alike, so that the median says something on a busy machine.
const CALLS: usize = 5;

/// Of a call.
const LENGTH: Duration = Duration::from_millis(400);

/// How a call begins, measured from the moment that the client has the success to its ChannelBind.
#[derive(Debug)]
struct Beginning {
    /// Packets that went through the server before the first that the kernel relayed: to the peer, and to the client.
    by_server: [u64; 2],
    /// Until the first one was sent that the kernel relayed to the peer.
    kernel_to_peer: Duration,
    /// Until the first one came that the kernel relayed to the client.
    kernel_to_client: Duration,
}

/// A client that begins to talk so long after its channel is bound, to a peer that echoes.
fn beginning(offload: &Offload, pause: Duration, interval: Duration) -> Beginning {
    // A busy machine has been seen to take more than 50 ms.
    let packets = (LENGTH.as_nanos() / interval.as_nanos()) as usize;
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    introduce(&mut client, &echo);
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    let bound = Instant::now();
    // By the number of the packet: those that a server held up for long are overtaken.
    let (mut sent, mut came) = (Vec::new(), BTreeMap::new());
    let mut channel = Channel { client: &mut client, number: CHANNEL };
    while came.len() < packets {
        let due = pause + interval * sent.len() as u32;
        let next = if sent.len() < packets { due } else { bound.elapsed() + PATIENCE };
        while came.len() < packets
            && let Some(left) = next.checked_sub(bound.elapsed())
            && let Some(data) = channel.receive(left).unwrap()
        {
            let number = u64::from_be_bytes(data.try_into().expect("what was sent"));
            assert_eq!(came.insert(number, bound.elapsed()), None, "{number} came twice");
        }
        assert!(sent.len() < packets || came.len() == packets, "{} of {packets} came", came.len());
        if sent.len() < packets {
            sent.push(bound.elapsed());
            channel.send(&(sent.len() as u64).to_be_bytes()).unwrap();
        }
    }
    let session = offload.session(&client, CHANNEL).unwrap();
    let by_server =
        [session.client_to_peer, session.peer_to_client].map(|way| packets as u64 - way.kernel_packets);
    client.refresh(0).unwrap();
    let [to_peer, to_client] = by_server;
    Beginning { by_server, kernel_to_peer: sent[to_peer as usize], kernel_to_client: came[&(to_client + 1)] }
}

fn median<T: Ord + Copy>(calls: &[Beginning], of: impl Fn(&Beginning) -> T) -> T {
    let mut values: Vec<T> = calls.iter().map(of).collect();
    values.sort_unstable();
    values[values.len() / 2]
}

/// Medians of how many packets went through the server first, to the peer and to the client.
fn by_server(arguments: &[&str], pause: Duration, interval: Duration) -> [u64; 2] {
    let offload = options().default_terms().daemon(arguments).start();
    let calls: Vec<Beginning> = (0..CALLS).map(|_| beginning(&offload, pause, interval)).collect();
    let by_server = [0, 1].map(|way| median(&calls, |call| call.by_server[way]));
    println!(
        "after {pause:?} every {interval:?}, {arguments:?}: {by_server:?} by the server, in the kernel to the peer after {:?}, to the client \
         after {:?}",
        median(&calls, |call| call.kernel_to_peer),
        median(&calls, |call| call.kernel_to_client),
    );
    by_server
}

/// With packets every 20 ms, as a voice has them, beginning with the success or 20 ms later; and every millisecond, which shows how soon the
/// kernel takes over. The heartbeat is longer than a call, so what goes through the server is what `--eager` is about.
#[test]
fn what_it_saves() {
    for (pause, interval, without, with) in [(20, 20, 1, 0), (0, 20, 2, 1)] {
        let [pause, interval] = [pause, interval].map(Duration::from_millis);
        let mut found = Vec::new();
        // A busy machine may take longer than from one packet to the next.
        let is_so = (0..3).any(|_| {
            found = vec![by_server(&[], pause, interval), by_server(&["--eager"], pause, interval)];
            found == [[without; 2], [with; 2]]
        });
        assert!(is_so, "after {pause:?}: {found:?}");
    }
    let interval = Duration::from_millis(1);
    for arguments in [&[][..], &["--eager"]] {
        let most = (LENGTH.as_millis() / interval.as_millis()) as u64;
        assert!(by_server(arguments, Duration::ZERO, interval).iter().all(|packets| *packets < most / 2));
    }
}
