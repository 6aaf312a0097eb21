//! One packet per flow and heartbeat goes to the server, with those that would otherwise overtake it.

use std::time::{Duration, Instant};

use turn_datapath::Reason;
use turn_testkit::dissect::dissect;
use turn_testkit::offload::wait_until;
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::wire::Wire;

use crate::{CHANNEL, options};

/// Its own interfaces show what XDP let pass: exactly the packets that turn-bpf calls spilled.
#[test]
fn the_server_sees_one_packet_of_each_flow_per_heartbeat() {
    for mode in ["native", "generic"] {
        let heartbeat = Duration::from_millis(250);
        let offload = options().mode(mode).terms(heartbeat, Duration::from_secs(1)).start();
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        let (client_address, peer_address) = (client.address().unwrap(), echo.address());
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let sample =
            || (offload.session(&client, CHANNEL).unwrap(), offload.daemon_ref().status().unwrap().reasons);
        let (mut before, mut counted_before) = sample();
        wait_until("what armed the flows is counted", || {
            let earlier = (before.clone(), counted_before.clone());
            (before, counted_before) = sample();
            (&before, &counted_before) == (&earlier.0, &earlier.1)
        });
        let wires = ["srv0", "srv1"].map(|interface| Wire::open(&offload.lab.server, interface).unwrap());

        let traffic = Traffic { stream: 1, sizes: 100..=100, rate: 400, duration: Duration::from_secs(3) };
        let start = Instant::now();
        let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
        let heartbeats = start.elapsed().as_secs_f64() / heartbeat.as_secs_f64();
        assert_eq!(report.verify(), Ok(()));

        let after = offload.session(&client, CHANNEL).unwrap();
        let spilled = [
            after.client_to_peer.spilled_packets - before.client_to_peer.spilled_packets,
            after.peer_to_client.spilled_packets - before.peer_to_client.spilled_packets,
        ];
        let counted = offload.daemon_ref().status().unwrap().reasons;
        let count = |reason: Reason| counted[reason.label()] - counted_before[reason.label()];
        let heartbeat = count(Reason::Heartbeat);
        let ratio = heartbeat as f64 / (2.0 * heartbeats);
        assert!((0.8..=1.2).contains(&ratio), "{heartbeat} in {heartbeats} heartbeats both ways, {mode}");
        for count in spilled {
            assert!(count as f64 >= heartbeats * 0.8, "{count} in {heartbeats} heartbeats, {mode}");
        }
        // The server may be slow, and packets then wait behind the one that it has; or the daemon, when the first long packet asks for
        // the MTU.
        let counted = Reason::ALL.into_iter().filter(|reason| reason.is_spilled()).map(count).sum::<u64>();
        assert_eq!((spilled.iter().sum::<u64>(), 0), (counted, count(Reason::NoLease)), "{mode}");
        let sources = [client_address, peer_address];
        let arrived = wires.each_ref().map(|wire| {
            let frames = wire.seen().unwrap().into_iter().filter(|frame| !frame.is_sent);
            let packets = frames.filter_map(|frame| dissect(&frame.bytes).ok());
            packets.filter(|packet| sources.contains(&packet.source)).count() as u64
        });
        assert_eq!(arrived, spilled, "{mode}, {relayed}");
        assert_eq!(after.state, "kernel");
    }
}
