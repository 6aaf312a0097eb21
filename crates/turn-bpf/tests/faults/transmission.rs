//! A driver that no longer transmits what is redirected to it: here, a virtual Ethernet link whose other end loses its XDP program.

use std::sync::Mutex;
use std::time::Duration;

use turn_testkit::lab::XdpMode;
use turn_testkit::offload::{Offload, wait_until};

use crate::call::Call;
use crate::options;

/// What the far ends of the server's interfaces need.
fn prepare(offload: &Offload) -> [std::os::fd::OwnedFd; 2] {
    let ends = [(&offload.lab.client, "cli0"), (&offload.lab.peer, "peer0")];
    ends.map(|(namespace, interface)| namespace.attach_pass(interface, XdpMode::Native).unwrap())
}

/// By itself turn-bpf goes over to the tc mode, in which the stack transmits.
#[test]
fn a_driver_that_stops_transmitting_is_done_without() {
    let mut offload = options().mode("auto").far_ends_without_program().start_without_daemon();
    let programs = prepare(&offload);
    offload.start_daemon();
    let mut call = Call::begin(&offload);
    let ordeal = call.through(&offload, Duration::from_secs(5), || drop(programs));
    let modes: Vec<_> =
        offload.daemon().status().unwrap().interfaces.into_iter().map(|one| one.mode).collect();
    assert_eq!(modes, ["tc"; 2]);
    assert!(ordeal.report.lost() < ordeal.report.sent / 10, "{:?}", ordeal.report.verify());
    ordeal.figures("target-cannot-transmit").report();
}

/// Where the operator insists on native mode, the server goes on alone until the driver transmits again.
#[test]
fn a_driver_that_transmits_again_is_used_again() {
    let mut offload = options().far_ends_without_program().start_without_daemon();
    let programs = Mutex::new(Some(prepare(&offload)));
    offload.start_daemon();
    let mut call = Call::begin(&offload);
    let ordeal = call.through(&offload, Duration::from_secs(6), || {
        drop(programs.lock().unwrap().take());
        wait_until("it is noticed", || offload.log().contains("thrown away"));
        *programs.lock().unwrap() = Some(prepare(&offload));
    });
    assert!(ordeal.report.lost() < ordeal.report.sent / 10, "{:?}", ordeal.report.verify());
    ordeal.figures("target-transmits-again").report();
}
