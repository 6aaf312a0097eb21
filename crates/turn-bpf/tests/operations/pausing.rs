//! `turn-bpf pause`, `resume` and `evict`, while packets flow.

use std::time::Duration;

use turn_testkit::traffic::{Channel, Traffic};

use crate::{CHANNEL, options};

#[test]
fn a_paused_session_is_the_servers_until_it_is_resumed() {
    for (topology, mode) in
        [(turn_testkit::lab::Topology::Two, "native"), (turn_testkit::lab::Topology::One, "generic")]
    {
        let mut offload = options().topology(topology).mode(mode).start();
        let (mut client, _) = offload.allocated_client();
        let (mut other, _) = offload.allocated_client();
        let [echo, other_echo] = [offload.echo(), offload.echo()];
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        offload.bind_and_arm(&mut other, CHANNEL, &other_echo);
        let address = client.address().unwrap().to_string();
        let before = offload.session(&client, CHANNEL).unwrap();

        // Nothing is lost or changed by any of it.
        let traffic = Traffic { stream: 1, sizes: 100..=300, rate: 500, duration: Duration::from_secs(2) };
        let (report, paused) = std::thread::scope(|scope| {
            let pump = scope.spawn(|| {
                traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap()
            });
            let daemon = offload.daemon();
            let said = daemon.output("pause", &["--client", &address]).unwrap();
            assert_eq!(said, "1 session paused\n");
            let row = || {
                let sessions = daemon.sessions().unwrap();
                sessions.into_iter().find(|row| row.client.to_string() == address).unwrap()
            };
            let paused = row();
            assert_eq!((paused.state.as_str(), paused.reason.as_deref()), ("userspace", Some("paused")));
            turn_testkit::offload::wait_until("packets through the server", || {
                row().client_to_peer.spilled_packets > paused.client_to_peer.spilled_packets + 50
            });
            assert_eq!(row().client_to_peer.kernel_packets, paused.client_to_peer.kernel_packets);
            (pump.join().unwrap(), paused)
        });
        assert_eq!(report.verify(), Ok(()));
        assert!(paused.client_to_peer.kernel_packets >= before.client_to_peer.kernel_packets);
        let after = offload.session(&client, CHANNEL).unwrap();
        let counted = after.client_to_peer.packets() - before.client_to_peer.packets();
        // While its flows are taken out and put in again, packets are nobody's for some milliseconds.
        let whole = report.sent * 9 / 10..=report.sent;
        assert!(whole.contains(&counted), "{counted} of {}: what was before is not forgotten", report.sent);
        offload.arm(&mut other, CHANNEL);

        // A new session that fits is paused as well.
        client.channel_bind(0x4002, other_echo.address()).unwrap();
        offload.wait_for_session(&client, 0x4002, |row| row.reason.as_deref() == Some("paused"));
        let status = offload.daemon().output("status", &[]).unwrap();
        assert!(status.contains(&format!("\npaused                  client {address}\n")), "{status}");

        // To resume something else resumes nothing; to resume more than that resumes this.
        let said = offload.daemon().output("resume", &["--client", "198.18.77.77"]).unwrap();
        assert_eq!(said, format!("0 sessions resumed\nstill paused: client {address}\n"));
        assert_eq!(offload.daemon().output("resume", &["--all"]).unwrap(), "2 sessions resumed\n");
        offload.arm(&mut client, CHANNEL);
    }
}

#[test]
fn an_evicted_session_comes_back_when_its_channel_is_bound_again() {
    let mut offload = options().start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let network = format!("{}/24", echo.address().ip());
    assert_eq!(offload.daemon().output("evict", &["--peer", &network]).unwrap(), "1 session evicted\n");
    assert!(offload.session(&client, CHANNEL).is_none());
    let traffic = Traffic { stream: 1, sizes: 100..=100, rate: 500, duration: Duration::from_millis(500) };
    let before = offload.kernel_packets();
    let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    assert_eq!((report.verify(), offload.kernel_packets()), (Ok(()), before), "the server relays it all");
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
}

#[test]
fn two_clients_that_bound_each_other_are_paused_together() {
    let mut offload = options().start();
    let (mut one, relayed_of_one) = offload.allocated_client();
    let (mut other, relayed_of_other) = offload.allocated_client();
    one.channel_bind(CHANNEL, relayed_of_other).unwrap();
    other.channel_bind(CHANNEL, relayed_of_one).unwrap();
    offload.wait_for_session(&other, CHANNEL, |_| true);
    let address = one.address().unwrap().to_string();
    assert_eq!(offload.daemon().output("pause", &["--client", &address]).unwrap(), "1 session paused\n");
    for client in [&one, &other] {
        offload.wait_for_session(client, CHANNEL, |row| row.reason.as_deref() == Some("paused"));
    }
    assert_eq!(offload.daemon().output("resume", &["--client", &address]).unwrap(), "1 session resumed\n");
    for client in [&one, &other] {
        offload.wait_for_session(client, CHANNEL, |row| row.reason.as_deref() == Some("no_traffic"));
    }
}

#[test]
fn who_says_nothing_pauses_nothing() {
    let mut offload = options().start();
    for subcommand in ["pause", "resume", "evict"] {
        for arguments in [&[][..], &["--all", "--client", "198.18.0.1"]] {
            let output = offload.daemon().command(subcommand).args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{subcommand} {arguments:?}");
        }
    }
}
