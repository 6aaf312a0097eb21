//! Packets stay in order where one of them goes through the server and the next ones do not.

use std::time::Duration;

use turn_testkit::traffic::{Channel, Traffic};

use crate::{CHANNEL, options};

/// 5,000 packets per second in both directions, and a heartbeat ten times per second.
#[test]
fn heartbeats_do_not_reorder() {
    for mode in ["native", "tc", "generic"] {
        let offload = options().mode(mode).terms(Duration::from_millis(100), Duration::from_secs(1)).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        // On a busy machine the sender itself is held up and then sends a burst. A burst faster than the server is
        // has its limit of packets that wait, so such a run says nothing.
        let is_in_order = (0..5).any(|_| {
            let traffic =
                Traffic { stream: 1, sizes: 100..=100, rate: 5000, duration: Duration::from_secs(4) };
            let heartbeats = offload.count("heartbeat");
            let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
            assert_eq!(report.verify(), Ok(()));
            let heartbeats = offload.count("heartbeat") - heartbeats;
            assert!(heartbeats >= 60, "{heartbeats} heartbeats in 4 s, both ways");
            println!("{mode}: {heartbeats} heartbeats, {} of 20000 reordered", report.tally.reordered);
            report.tally.reordered == 0
        });
        assert!(is_in_order, "{mode}");
    }
}
