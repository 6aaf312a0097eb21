//! Jumbo frames, which reach a native program in several parts.

use std::time::Duration;

use turn_testkit::lab::Topology;
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::traffic::{Carrier as _, Channel};

use crate::{CHANNEL, options};

/// Longer than any test, so that it is known which packets the kernel relays.
const NO_HEARTBEAT: Duration = Duration::from_secs(50);
const LEASE: Duration = Duration::from_secs(60);
const MTU: usize = 9000;
/// With IPv4, UDP and ChannelData headers.
const MOST: usize = MTU - 20 - 8 - 4;

fn with_jumbo_frames(mode: &str, topology: Topology) -> Offload {
    let mut offload =
        options().mode(mode).topology(topology).terms(NO_HEARTBEAT, LEASE).start_without_daemon();
    for namespace in offload.lab.namespaces() {
        let names = namespace.output("ls", &["/sys/class/net"]).unwrap();
        for name in names.split_whitespace().filter(|name| *name != "lo") {
            namespace.run("ip", &["link", "set", name, "mtu", &MTU.to_string()]).unwrap();
        }
    }
    offload.start_daemon();
    offload
}

#[test]
fn jumbo_frames_are_relayed() {
    for (mode, topology) in [
        ("native", Topology::Two),
        ("native", Topology::One),
        ("tc", Topology::Two),
        ("generic", Topology::Two),
    ] {
        let offload = with_jumbo_frames(mode, topology);
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        // The server shows that the longest frames need not be cut.
        let mut channel = Channel { client: &mut client, number: CHANNEL };
        channel.send(&[7; MOST]).unwrap();
        assert_eq!(channel.receive(PATIENCE).unwrap(), Some(vec![7; MOST]));
        let before = offload.kernel_packets();
        // Around what a page of 4096 bytes has room for in the first part, and up to the MTU.
        let sizes = (3400..3520).step_by(7).chain([4000, 4096, 8000, 8001, 8002, 8003, MOST - 1, MOST]);
        let mut count = 0;
        for size in sizes {
            let payload: Vec<u8> = (0..size).map(|at| (size + at * 7 + at / 256) as u8).collect();
            let mut channel = Channel { client: &mut client, number: CHANNEL };
            channel.send(&payload).unwrap();
            let echoed = channel.receive(PATIENCE).unwrap();
            assert!(
                echoed.as_ref() == Some(&payload),
                "{size} bytes, {mode}, {topology:?}: {}",
                offload.log()
            );
            count += 1;
        }
        assert_eq!(offload.kernel_packets() - before, 2 * count, "{mode}, {topology:?}");
    }
}
