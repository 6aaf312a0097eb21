//! Before 6.6 programs at TC are filters of the clsact qdisc, which outlive a daemon that was killed.

use std::thread;
use std::time::{Duration, Instant};

use turn_testkit::figures::Figures;
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::{Channel, Report, Traffic};
use turn_testkit::turn_client::TurnClient;
use turn_testkit::wire::Observer;

use crate::{CHANNEL, options};

const LEASE: Duration = Duration::from_secs(1);
/// A tick of the clock that leases use, and a busy machine.
const MARGIN: Duration = Duration::from_millis(150);
/// Little enough for a machine whose processor is emulated.
const RATE: u32 = 100;
/// Packets that may be under way in a driver when its XDP program is taken from it.
const IN_FLIGHT: u64 = 8;

fn traffic(stream: u32) -> Traffic {
    Traffic { stream, sizes: 100..=1200, rate: RATE, duration: LEASE * 3 }
}

fn round_trips(client: &mut TurnClient, stream: u32) -> Report {
    traffic(stream).round_trips(&mut Channel { client, number: CHANNEL }).unwrap()
}

/// What is attached that does not end with the daemon.
fn filters(offload: &Offload) -> Vec<String> {
    offload.attached_programs().into_iter().filter(|program| !program.contains("prog/xdp")).collect()
}

/// What is left relays on by the witnesses of the server as long as that relays, and for no longer than a lease after it. For calls that
/// come later it is not there. The next daemon puts its own in its place, and takes them along when it is told to stop.
#[test]
#[ignore = "needs a kernel before 6.6: cargo xtask vm"]
fn filters_of_a_killed_daemon_end_their_leases_and_are_replaced_by_the_next_one() {
    for mode in ["native", "generic", "tc"] {
        let mut offload = options().mode(mode).start();
        let attached = offload.attached_programs();
        let left = filters(&offload);
        assert!(!left.is_empty(), "{mode}: {attached:?}");
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);

        let echoed = echo.echoed();
        let report = thread::scope(|scope| {
            let report = scope.spawn(|| round_trips(&mut client, 1));
            wait_until("packets go both ways", || echo.echoed() > echoed + u64::from(RATE / 2));
            offload.take_daemon().kill().unwrap();
            report.join().unwrap()
        });
        let may_be_lost = if mode == "native" { IN_FLIGHT } else { 0 };
        assert!(report.lost() <= may_be_lost, "{mode}: {:?}", report.verify());
        assert_eq!((report.tally.duplicated, report.tally.altered), (0, 0), "{mode}");
        assert_eq!(offload.attached_programs(), left, "{mode}");

        let at_peer = Observer::start(&offload.lab.peer, "peer0").unwrap();
        let echoed = echo.echoed();
        let (sent, ended) = thread::scope(|scope| {
            let mut channel = Channel { client: &mut client, number: CHANNEL };
            let sent = scope.spawn(move || traffic(2).one_way(&mut channel).unwrap());
            wait_until("packets come", || echo.echoed() > echoed + u64::from(RATE / 2));
            offload.take_coturn().kill().unwrap();
            let ended = Instant::now();
            (sent.join().unwrap(), ended)
        });
        let arrivals = at_peer.arrivals(|one| one.destination == echo.address() && one.at > ended);
        let outlived = arrivals.last().map(|last| last.at - ended);
        assert_eq!(outlived.is_some(), mode == "tc", "{mode}: {} of {sent}", arrivals.len());
        assert!(outlived.is_none_or(|time| time < LEASE + MARGIN), "{mode}: {outlived:?}");

        while client.receive(Duration::ZERO).unwrap().is_some() {}
        offload.start_coturn();
        client.allocate(None, None).unwrap();
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        assert_eq!(round_trips(&mut client, 3).verify(), Ok(()), "{mode}: by the server alone");

        offload.start_daemon();
        assert_eq!(offload.attached_programs().len(), attached.len(), "{mode}");
        let replaced = filters(&offload);
        // Each filter has a line with the id of its program, and one before it that is the same for all.
        let ids = |lines: &[String]| -> Vec<String> {
            lines.iter().filter(|line| line.contains(" id ")).cloned().collect()
        };
        assert!(
            ids(&replaced).iter().all(|line| !ids(&left).contains(line)),
            "{mode}: {left:?} {replaced:?}"
        );
        let began = Instant::now();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let healed = began.elapsed();
        assert_eq!(round_trips(&mut client, 4).verify(), Ok(()), "{mode}");
        assert!(offload.kernel_packets() > u64::from(RATE), "{mode}: {:?}", offload.counted());

        assert!(offload.take_daemon().stop().unwrap().success());
        assert_eq!(offload.attached_programs(), [""; 0], "{mode}");
        let figures = Figures::of("filters-left").lost(report.lost(), report.sent).healed(healed);
        outlived.into_iter().fold(figures, Figures::outlived).report();
    }
}
