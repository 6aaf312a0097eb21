//! Processes that are killed, stopped and started.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turn_testkit::figures::{Figures, times};
use turn_testkit::steady::{Arrivals, Losses};
use turn_testkit::wire::Observer;

use crate::call::Call;
use crate::{CHANNEL, modes, options};

const LEASE: Duration = Duration::from_secs(1);

/// Both are started again, and the client allocates anew as after any crash of a server.
#[test]
fn server_and_daemon_killed_together_leave_nothing_behind() {
    for mode in modes() {
        let mut offload = options().mode(mode).start();
        let mut call = Call::begin(&offload);
        let at_peer = Observer::start(&offload.lab.peer, "peer0").unwrap();
        let (coturn, daemon) = (offload.take_coturn(), offload.take_daemon());
        coturn.kill().unwrap();
        daemon.kill().unwrap();
        assert_eq!(offload.attached_programs(), [""; 0], "{mode}");
        for _ in 0..20 {
            call.client.send_channel_data(CHANNEL, b"to nobody", &[]).unwrap();
        }
        sleep(Duration::from_millis(100));
        assert_eq!(at_peer.arrivals(|one| one.payload == b"to nobody"), [], "{mode}");

        offload.start_coturn();
        offload.start_daemon();
        let began = Instant::now();
        assert_eq!(call.client.refresh(600).unwrap_err().code(), Some(437));
        call.client.allocate(None, None).unwrap();
        offload.bind_and_arm(&mut call.client, CHANNEL, &call.echo);
        let healed = began.elapsed();
        let ordeal = call.through(&offload, Duration::from_secs(1), || {});
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        Figures::of("both-killed").healed(healed).report();
    }
}

/// Leases are kept by the kernel side alone, so a daemon that hangs is missed by nobody but new calls.
#[test]
fn a_daemon_that_hangs_is_not_missed() {
    for mode in modes() {
        let mut offload = options().mode(mode).start();
        let mut call = Call::begin(&offload);
        let pid = rustix::process::Pid::from_raw(offload.daemon().process().id() as i32).unwrap();
        let ordeal = call.through(&offload, Duration::from_secs(4), || {
            rustix::process::kill_process(pid, Signal::STOP).unwrap();
            sleep(LEASE * 2);
            rustix::process::kill_process(pid, Signal::CONT).unwrap();
        });
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        assert!(ordeal.stayed_in_the_kernel(), "{mode}: {} packets", ordeal.by_kernel);
        ordeal.figures("daemon-hangs").report();
    }
}

/// Killed and told to stop in turn, while packets go both ways; each new one learns the call at its next ChannelBind.
#[test]
fn a_daemon_that_is_restarted_again_and_again_costs_next_to_nothing() {
    let restarts = times(10, 100);
    let mut offload = options().start();
    let (mut client, relayed) = offload.allocated_client();
    let peer = offload.peer();
    let peer_address = peer.local_addr().unwrap();
    let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
    let mut by_kernel = 0;
    let mut slowest = Duration::ZERO;
    let arrivals = Arrivals::watch(&offload.lab).unwrap();
    for number in 0..restarts {
        by_kernel += offload.kernel_packets();
        let daemon = offload.take_daemon();
        match number % 2 {
            0 => daemon.kill().unwrap(),
            _ => assert!(daemon.stop().unwrap().success()),
        }
        assert_eq!(offload.attached_programs(), [""; 0], "after {number} restarts");
        offload.start_daemon();
        let began = Instant::now();
        while client.receive(Duration::ZERO).unwrap().is_some() {}
        client.channel_bind(CHANNEL, peer_address).unwrap();
        offload.wait_for_session(&client, CHANNEL, |session| {
            session.state == "kernel" && session.peer_to_client.kernel_packets > 20
        });
        slowest = slowest.max(began.elapsed());
    }
    by_kernel += offload.kernel_packets();
    drop(pumps);
    let Losses { sent, lost } = arrivals.losses(client.address().unwrap(), peer_address);
    assert!(lost <= 16 * u64::from(restarts), "{lost} of {sent} packets");
    assert!(by_kernel > 40 * u64::from(restarts), "{by_kernel} of {sent} packets by the kernel");
    Figures::of("daemon-restarts")
        .lost(lost, sent)
        .healed(slowest)
        .count("restarts", restarts.into())
        .count("packets relayed by the kernel", by_kernel)
        .report();
}
