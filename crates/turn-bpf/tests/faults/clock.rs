//! Clocks: one that is another in this process than in the kernel, and time that passes while nothing runs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turn_testkit::figures::Figures;
use turn_testkit::offload::{TO_PEER, wait_until};
use turn_testkit::wire::Observer;

use crate::call::Call;
use crate::{CHANNEL, modes, options};

const LEASE: Duration = Duration::from_secs(1);

/// In seconds. A clock cannot be put back to before it began.
fn half_of_uptime() -> u64 {
    let seconds = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    u64::try_from(seconds).expect("time since the start") / 2
}

/// In a time namespace the daemon's monotonic clock is not the one by which the kernel side keeps its leases.
#[test]
fn a_time_namespace_changes_nothing() {
    for offset in ["86400".to_owned(), format!("-{}", half_of_uptime())] {
        let within = ["unshare", "--time", "--monotonic", &offset];
        for more in [&[][..], &["--eager"]] {
            let offload = options().within(&within).daemon(more).start();
            let mut call = Call::begin(&offload);
            let ordeal = call.through(&offload, Duration::from_secs(2), || sleep(LEASE));
            assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
            assert!(ordeal.stayed_in_the_kernel(), "{offset} {more:?}: {} packets", ordeal.by_kernel);
            ordeal.figures("time-namespace").report();
            call.client.refresh(0).unwrap();
            offload.wait_until_unbound(&call.client, CHANNEL);
        }
    }
}

/// What a suspended machine looks like to a clock that goes on: daemon, server and ends stand still for several leases. Nothing that was
/// allowed before is relayed after, until the server has been seen again.
#[test]
fn nothing_is_relayed_on_the_strength_of_a_lease_from_before_a_standstill() {
    for mode in modes() {
        let mut offload = options().mode(mode).start();
        let (mut client, relayed) = offload.allocated_client();
        let peer = offload.peer();
        let peer_address = peer.local_addr().unwrap();
        let pumps = offload.steady(&mut client, CHANNEL, relayed, &peer);
        drop(pumps);
        offload.coturn().process().signal(Signal::STOP).unwrap();
        offload.daemon().process().signal(Signal::STOP).unwrap();
        sleep(LEASE * 2);
        let at_peer = Observer::start(&offload.lab.peer, "peer0").unwrap();
        for _ in 0..10 {
            client.send_channel_data(CHANNEL, TO_PEER, &[]).unwrap();
        }
        sleep(Duration::from_millis(200));
        assert_eq!(at_peer.arrivals_for(peer_address), [], "{mode}");

        let woken = Instant::now();
        offload.coturn().process().signal(Signal::CONT).unwrap();
        offload.daemon().process().signal(Signal::CONT).unwrap();
        wait_until("the server has caught up", || at_peer.arrivals_for(peer_address).len() == 10);
        wait_until("the kernel relays again", || {
            client.send_channel_data(CHANNEL, TO_PEER, &[]).unwrap();
            offload.session(&client, CHANNEL).is_some_and(|row| row.state != "userspace")
        });
        Figures::of("standstill").lost(0, 10).healed(woken.elapsed()).report();
    }
}
