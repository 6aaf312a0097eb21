//! What the next daemon knows of calls, and what has ended meanwhile.

use std::thread::sleep;
use std::time::{Duration, Instant};

use turn_testkit::daemon::Session;
use turn_testkit::figures::Figures;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::turn_client::TurnClient;

use crate::{BpfFilesystem, CHANNEL, End, MODES, end};

const LEASE: Duration = Duration::from_secs(1);

fn round_trips(client: &mut TurnClient, stream: u32, time: Duration) {
    let traffic = Traffic { stream, sizes: 100..=100, rate: 1000, duration: time };
    let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
}

fn kernel_packets(session: &Session) -> u64 {
    session.client_to_peer.kernel_packets + session.peer_to_client.kernel_packets
}

/// Longer than any lease runs, so the server's own packets renew it with nobody to hear of it.
#[test]
fn a_call_is_relayed_in_the_kernel_while_there_is_no_daemon_and_the_next_one_knows_all_of_it() {
    for (mode, how) in MODES.into_iter().zip([End::Told, End::Killed, End::Told]) {
        let bpf = BpfFilesystem::mount();
        let mut offload = bpf.options().mode(mode).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let before = offload.session(&client, CHANNEL).unwrap();
        let rows_before: serde_json::Value = offload.daemon().document("sessions").unwrap();

        end(&mut offload, how);
        round_trips(&mut client, 1, LEASE * 3);
        offload.start_daemon();

        let after = offload.session(&client, CHANNEL).unwrap();
        let ends = |row: &Session| (row.client, row.server, row.relayed, row.peer, row.state.clone());
        assert_eq!(ends(&after), ends(&before), "{mode}");
        assert!(kernel_packets(&after) > kernel_packets(&before) + 5000, "{mode}: {before:?} {after:?}");
        let rows: serde_json::Value = offload.daemon().document("sessions").unwrap();
        for field in ["started", "username", "realm"] {
            assert_eq!(rows["sessions"][0][field], rows_before["sessions"][0][field], "{mode}: {field}");
        }
        assert!(rows["sessions"][0]["username"].is_string());
        let status: serde_json::Value = offload.daemon().document("status").unwrap();
        assert!(status["bytes"]["kernel"].as_u64().unwrap() > 500_000, "{mode}: {status}");

        // All of it is as if it had been heard by this one.
        round_trips(&mut client, 2, LEASE * 2);
        assert!(kernel_packets(&offload.session(&client, CHANNEL).unwrap()) > kernel_packets(&after) + 3000);
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        offload.arm(&mut client, CHANNEL);
        client.refresh(0).unwrap();
        offload.wait_until_unbound(&client, CHANNEL);
    }
}

#[test]
fn what_was_said_while_there_was_no_daemon_is_heard_by_the_next_one() {
    let bpf = BpfFilesystem::mount();
    let mut offload = bpf.options().default_terms().start();
    let calls: Vec<_> = (0..3).map(|_| (offload.allocated_client().0, offload.echo())).collect();
    let [mut ended, mut rebound, mut begun] = calls.try_into().ok().unwrap();
    offload.bind_and_arm(&mut ended.0, CHANNEL, &ended.1);
    offload.bind_and_arm(&mut rebound.0, CHANNEL, &rebound.1);

    end(&mut offload, End::Told);
    ended.0.refresh(0).unwrap();
    rebound.0.channel_bind(CHANNEL + 1, begun.1.address()).unwrap();
    begun.0.channel_bind(CHANNEL, begun.1.address()).unwrap();
    offload.start_daemon();

    assert_eq!(offload.session(&ended.0, CHANNEL), None);
    assert_eq!(offload.session(&rebound.0, CHANNEL).unwrap().state, "kernel");
    assert!(offload.session(&rebound.0, CHANNEL + 1).is_some());
    offload.arm(&mut rebound.0, CHANNEL + 1);
    offload.arm(&mut begun.0, CHANNEL);
}

/// A server that dies says nothing on the wire, and the default lease has long to run.
#[test]
fn calls_whose_relay_sockets_have_closed_meanwhile_are_over() {
    for how in [End::Told, End::Killed] {
        let bpf = BpfFilesystem::mount();
        let mut offload = bpf.options().default_terms().start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        end(&mut offload, how);
        offload.take_coturn().kill().unwrap();
        offload.start_daemon();
        assert_eq!(offload.sessions(), [], "{how:?}");
        let before = offload.kernel_packets();
        for _ in 0..10 {
            client.send_channel_data(CHANNEL, b"to nobody", b"").unwrap();
        }
        wait_until("the packets came in", || offload.count("no_flow") >= 10);
        assert_eq!(offload.kernel_packets(), before);
    }
}

/// With no daemon at all leases end by themselves.
#[test]
fn a_dead_server_is_outlived_by_a_lease_and_no_longer() {
    let bpf = BpfFilesystem::mount();
    let mut offload = bpf.options().start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    end(&mut offload, End::Killed);
    offload.take_coturn().kill().unwrap();
    let died = Instant::now();
    let mut last = died;
    let mut echoed = echo.echoed();
    while died.elapsed() < LEASE * 3 {
        client.send_channel_data(CHANNEL, b"to nobody", b"").unwrap();
        sleep(Duration::from_millis(10));
        if std::mem::replace(&mut echoed, echo.echoed()) != echoed {
            last = Instant::now();
        }
    }
    let outlived = last - died;
    Figures::of("server-killed-kept").outlived(outlived).report();
    assert!(outlived < LEASE + Duration::from_millis(200), "{outlived:?}");
}

/// Maps stay, and programs are others.
#[test]
fn options_may_change_from_one_daemon_to_the_next() {
    let bpf = BpfFilesystem::mount();
    let mut offload = bpf.options().default_terms().start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let spilled = |offload: &Offload, client: &TurnClient| {
        let session = offload.session(client, CHANNEL).unwrap();
        assert_eq!(session.state, "kernel", "{session:?}");
        session.client_to_peer.spilled_packets
    };
    end(&mut offload, End::Told);
    offload.start_daemon_with(&["--heartbeat", "100ms", "--lease", "1s", "--join", "--eager"]);
    // A heartbeat of the earlier daemon may be due once more.
    round_trips(&mut client, 1, Duration::from_secs(4));
    let before = spilled(&offload, &client);
    round_trips(&mut client, 2, Duration::from_secs(2));
    let heartbeats = spilled(&offload, &client) - before;
    assert!(heartbeats >= 10, "{heartbeats} packets to the server in two seconds");

    end(&mut offload, End::Killed);
    offload.start_daemon_with(&["--max-rate", "10k"]);
    round_trips(&mut client, 3, Duration::from_secs(2));
    assert_eq!(offload.session(&client, CHANNEL).unwrap().reason.as_deref(), Some("over_rate"));
}
