//! Programs of others at the same interfaces.

use std::thread::sleep;
use std::time::Duration;

use turn_testkit::lab::{EgressProgram, XdpMode};
use turn_testkit::offload::wait_until;

use crate::call::Call;
use crate::{modes, options};

/// More than a lease, so that witnesses must have been seen.
const LONG: Duration = Duration::from_millis(1500);
const FOUR_SECONDS: Duration = Duration::from_secs(4);

#[test]
fn a_second_xdp_program_is_refused_and_the_first_goes_on() {
    for mode in modes() {
        let offload = options().mode(mode).start();
        let mut call = Call::begin(&offload);
        let server = &offload.lab.server;
        let before = offload.attached_programs();
        let ordeal = call.through(&offload, FOUR_SECONDS, || {
            for interface in ["srv0", "srv1"] {
                for mode in [XdpMode::Native, XdpMode::Generic] {
                    assert!(server.attach_pass(interface, mode).is_err(), "two programs at {interface}");
                }
                // It may say that it has done it, where there is none in the driver.
                let _nothing_changes = server.run("ip", &["link", "set", "dev", interface, "xdp", "off"]);
            }
            sleep(LONG);
        });
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        assert_eq!(offload.attached_programs(), before);
        ordeal.figures("second-xdp-program").report();
    }
}

/// At the egress there is room for several, in front and behind, by tcx and by clsact.
#[test]
fn programs_that_let_packets_pass_change_nothing() {
    for mode in modes() {
        let offload = options().mode(mode).start();
        let mut call = Call::begin(&offload);
        let server = &offload.lab.server;
        let ordeal = call.through(&offload, FOUR_SECONDS, || {
            let interfaces = ["srv0", "srv1"];
            let programs = interfaces.map(|interface| {
                [EgressProgram::First, EgressProgram::Last]
                    .map(|program| server.attach_egress(interface, program).unwrap())
            });
            for interface in interfaces {
                server.run("tc", &["qdisc", "add", "dev", interface, "clsact"]).unwrap();
                let everything = ["bpf", "bytecode", "1,6 0 0 4294967295,", "flowid", "1:1"];
                let filter = [&["filter", "add", "dev", interface, "egress"], &everything[..]].concat();
                server.run("tc", &filter).unwrap();
            }
            sleep(LONG);
            for interface in interfaces {
                server.run("tc", &["qdisc", "delete", "dev", interface, "clsact"]).unwrap();
            }
            drop(programs);
        });
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        assert!(ordeal.stayed_in_the_kernel(), "{mode}: {} packets", ordeal.by_kernel);
        ordeal.figures("egress-programs").report();
    }
}

/// A program in front of ours may end the chain. Then no witness is seen, and without one nothing is relayed; but nothing is lost either.
#[test]
fn a_program_that_hides_packets_from_us_leaves_calls_to_the_server() {
    for mode in modes() {
        let offload = options().mode(mode).start();
        let mut call = Call::begin(&offload);
        let server = &offload.lab.server;
        let ordeal = call.through(&offload, FOUR_SECONDS, || {
            let programs = ["srv0", "srv1"]
                .map(|interface| server.attach_egress(interface, EgressProgram::Only).unwrap());
            wait_until("the leases are over", || offload.sessions()[0].state == "userspace");
            drop(programs);
        });
        assert!(ordeal.lost_nothing(), "{:?}", ordeal.report.verify());
        ordeal.figures("egress-hidden").report();
    }
}
