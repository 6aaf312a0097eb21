//! turn-bpf ends, or begins late.

use std::thread;
use std::time::{Duration, Instant};

use turn_testkit::figures::Figures;
use turn_testkit::offload::Offload;
use turn_testkit::traffic::{Channel, Report, Traffic};
use turn_testkit::turn_client::TurnClient;

use crate::{CHANNEL, options};

/// Packets that may be under way in a driver when its program is taken from it.
const IN_FLIGHT: u64 = 8;

/// Sends two thousand packets a second for two seconds, and has something done in between. Returns how many may be lost, too: those in
/// flight, and those for which a server that is slow on a busy machine had no room.
fn in_mid_traffic(
    offload: &mut Offload,
    client: &mut TurnClient,
    act: impl FnOnce(&mut Offload),
) -> (Report, u64) {
    let overflows = offload.lab.server.udp_overflows().unwrap();
    let traffic = Traffic { stream: 1, sizes: 32..=1000, rate: 2000, duration: Duration::from_secs(2) };
    let report = thread::scope(|scope| {
        let report = scope.spawn(|| traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap());
        thread::sleep(Duration::from_millis(700));
        act(offload);
        report.join().unwrap()
    });
    (report, IN_FLIGHT + offload.lab.server.udp_overflows().unwrap() - overflows)
}

#[test]
fn a_killed_daemon_leaves_nothing_behind_and_the_call_goes_on() {
    for mode in ["native", "generic"] {
        let mut offload = options().mode(mode).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        assert_eq!(offload.attached_programs().len(), 4, "{:?}", offload.attached_programs());
        let (report, may_be_lost) = in_mid_traffic(&mut offload, &mut client, |offload| {
            let daemon = offload.take_daemon();
            assert!(daemon.status().unwrap().packets.kernel > 1000);
            daemon.kill().unwrap();
        });
        assert!(report.lost() <= may_be_lost, "{mode}: {:?}", report.verify());
        assert_eq!((report.tally.duplicated, report.tally.altered), (0, 0), "{mode}");
        assert_eq!(offload.attached_programs(), [""; 0], "{mode}");

        // On the same interfaces, and on the same control socket, which a killed process cannot remove.
        assert!(offload.control().exists());
        offload.start_daemon();
        let began = Instant::now();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        Figures::of("daemon-killed").lost(report.lost(), report.sent).healed(began.elapsed()).report();
    }
}

#[test]
fn a_daemon_that_is_told_to_stop_detaches_and_the_call_goes_on() {
    for mode in ["native", "generic"] {
        let mut offload = options().mode(mode).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let (report, may_be_lost) = in_mid_traffic(&mut offload, &mut client, |offload| {
            assert!(offload.kernel_packets() > 1000);
            assert!(offload.take_daemon().stop().unwrap().success());
        });
        assert!(report.lost() <= may_be_lost, "{mode}: {:?}", report.verify());
        assert_eq!((report.tally.duplicated, report.tally.altered), (0, 0), "{mode}");
        assert_eq!(offload.attached_programs(), [""; 0], "{mode}");
        assert!(!offload.control().exists(), "the control socket is gone");
        Figures::of("daemon-stopped").lost(report.lost(), report.sent).report();
    }
}

/// The allocation was made before turn-bpf was there to see it.
#[test]
fn a_late_daemon_takes_a_call_over_at_its_next_channel_binding() {
    for mode in ["native", "generic"] {
        let mut offload = options().mode(mode).start_without_daemon();
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        let (report, may_be_lost) = in_mid_traffic(&mut offload, &mut client, Offload::start_daemon);
        assert!(report.lost() <= may_be_lost, "{mode}: {:?}", report.verify());
        assert_eq!(offload.kernel_packets(), 0);
        Figures::of("daemon-late").lost(report.lost(), report.sent).report();

        client.channel_bind(CHANNEL, echo.address()).unwrap();
        let traffic = Traffic { stream: 2, sizes: 100..=100, rate: 1000, duration: Duration::from_secs(1) };
        let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));
        let session = offload.session(&client, CHANNEL).unwrap();
        assert_eq!((session.relayed, session.state.as_str()), (relayed, "kernel"), "{session:?}");
        assert!(session.client_to_peer.kernel_packets > 800, "{session:?}");
        assert!(session.peer_to_client.kernel_packets > 800, "{session:?}");

        client.refresh(0).unwrap();
        offload.wait_until_unbound(&client, CHANNEL);
    }
}
