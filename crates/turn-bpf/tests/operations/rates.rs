//! `--max-rate`: what a session may carry in the kernel, and that the server's own limit holds for the rest.

use std::time::Duration;

use turn_testkit::traffic::{Channel, Traffic};

use crate::{CHANNEL, options};

/// Bytes per second.
const RATE: u64 = 100_000;

fn load(rate: u32, seconds: u64) -> Traffic {
    Traffic { stream: 1, sizes: 996..=996, rate, duration: Duration::from_secs(seconds) }
}

/// Without a limit of its own the server relays what the kernel leaves to it: nothing is lost.
#[test]
fn a_session_over_its_rate_is_the_servers_until_it_slows_down() {
    let mut offload = options().daemon(&["--max-rate", "100k"]).start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let before = offload.session(&client, CHANNEL).unwrap();

    // Three times the rate, for three seconds.
    let report = load(300, 3).round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    let row = offload.session(&client, CHANNEL).unwrap();
    assert_eq!((row.state.as_str(), row.reason.as_deref()), ("userspace", Some("over_rate")));
    for (after, before) in
        [(row.client_to_peer, before.client_to_peer), (row.peer_to_client, before.peer_to_client)]
    {
        let kernel = after.kernel_bytes - before.kernel_bytes;
        // A second's worth beyond the rate until it is noticed, and from then on nothing.
        assert!(kernel < 2 * RATE, "{kernel} bytes in the kernel");
        assert!(kernel > RATE / 2, "{kernel} bytes in the kernel");
    }
    assert!(offload.count("over_rate") > 500);

    // Half of the rate is fine, once the arrears are over.
    let slow = load(50, 3).round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    assert_eq!(slow.verify(), Ok(()));
    let after = offload.session(&client, CHANNEL).unwrap();
    assert_eq!(after.state, "kernel", "{after:?}");
    let kernel = after.client_to_peer.kernel_packets - row.client_to_peer.kernel_packets;
    assert!(kernel > slow.sent / 4, "{kernel} of {} packets", slow.sent);
    let status = offload.daemon().output("status", &[]).unwrap();
    assert!(status.contains("limit                   100000 bytes per second"), "{status}");
}

/// What a server's own limit lets through, with and without the kernel's help: about as much.
#[test]
fn a_limit_of_coturns_holds_again() {
    let through = |arguments: &[&str]| {
        let mut offload =
            options().coturn(&[&format!("--max-bps={RATE}")]).daemon(arguments).start_without_daemon();
        if !arguments.is_empty() {
            offload.start_daemon();
        }
        let (mut client, _) = offload.allocated_client();
        let sink = offload.sink(1);
        client.channel_bind(CHANNEL, sink.address()).unwrap();
        load(300, 5).one_way(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
        sink.tally().received * 1000 / 5
    };
    let alone = through(&[]);
    let limited = through(&["--max-rate", "100k"]);
    let unlimited = through(&["--max-rate", "100M"]);
    println!(
        "bytes per second through: {alone} by coturn alone, {limited} with --max-rate, {unlimited} without a limit"
    );
    assert!(
        unlimited > 2 * alone,
        "without --max-rate coturn's limit does not hold: {unlimited}, {alone} alone"
    );
    assert!(limited < alone * 3 / 2 && limited > alone / 2, "{limited}, {alone} alone");
}
