//! Interfaces that turn-bpf cannot attach to.

use turn_bpf::host::KernelRelease;
use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Lab, PASS_PROGRAM, Topology, XdpMode};
use turn_testkit::scratch::ScratchFolder;

use crate::BINARY;
use crate::attempt::{attached, run};

/// What a driver can do a kernel tells before anything is attached, from 6.3 on.
fn is_told() -> bool {
    KernelRelease::running().is_some_and(|kernel| kernel >= KernelRelease { major: 6, minor: 3 })
}

/// What is said where it shows only at the attempt.
fn refused(interface: &str) -> [&str; 4] {
    [interface, "cannot attach to", "in native mode", "its driver cannot"]
}

#[test]
fn there_is_no_such_interface() {
    let lab = Lab::new(Topology::Two).unwrap();
    run(&lab, &["srv9"]).expect(1, &["srv9", "there are: lo, srv0, srv1"]);
    run(&lab, &["srv0", "srv9"]).expect(1, &["srv9", "there are: lo, srv0, srv1"]);
    run(&lab, &["srv0", "srv0"]).expect(1, &["srv0 is given twice"]);
}

#[test]
fn the_interface_is_down() {
    let lab = Lab::new(Topology::Two).unwrap();
    lab.server.run("ip", &["link", "set", "srv1", "down"]).unwrap();
    run(&lab, &["srv0", "srv1"]).expect(1, &["srv1 is down", "ip link set dev srv1 up"]);
}

#[test]
fn another_xdp_program_is_there() {
    let lab = Lab::new(Topology::Two).unwrap();
    for (mode, name) in [(XdpMode::Native, "native"), (XdpMode::Generic, "generic")] {
        for interface in ["srv0", "srv1"] {
            let _link = lab.server.attach_pass(interface, mode).unwrap();
            for wanted in ["native", "generic"] {
                let refusal = run(&lab, &["srv0", "srv1", "--mode", wanted]);
                refusal.expect(1, &[interface, "already has an XDP program", PASS_PROGRAM, name]);
            }
        }
    }
}

/// What another XDP program or the driver leaves no room for goes to TC by itself, and says why.
#[test]
fn where_native_mode_cannot_be_there_is_tc() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    let start = |arguments: &[&str]| {
        Daemon::start(&lab.server, BINARY.as_ref(), &folder.path().join("control.sock"), arguments).unwrap()
    };
    let mode_of = |daemon: &Daemon, name: &str| {
        let interfaces = daemon.status().unwrap().interfaces;
        let interface = interfaces.into_iter().find(|one| one.name == name).unwrap();
        assert!(
            daemon.ready_line().contains(&format!("{name} ({})", interface.mode)),
            "{}",
            daemon.ready_line()
        );
        (interface.mode, interface.mode_reason.unwrap_or_default())
    };
    for (mode, name) in [(XdpMode::Native, "native"), (XdpMode::Generic, "generic")] {
        let link = lab.server.attach_pass("srv1", mode).unwrap();
        let before = attached(&lab);
        for wanted in ["auto", "tc"] {
            let daemon = start(&["srv1", "--mode", wanted]);
            let (mode, reason) = mode_of(&daemon, "srv1");
            assert_eq!(mode, "tc");
            let parts = ["another XDP program is attached", PASS_PROGRAM, name];
            assert_eq!(parts.map(|part| reason.contains(part)), [wanted == "auto"; 3], "{reason}");
            run(&lab, &["srv1"]).expect(1, &["turn-bpf is already attached to srv1"]);
            assert!(daemon.stop().unwrap().success());
            assert_eq!(attached(&lab), before);
        }
        drop(link);
    }

    // More transmit queues at the other end than receive queues here: veth refuses a native program (ENOSPC).
    let pair = "link add far9 numtxqueues 2 type veth peer name near9 numrxqueues 1";
    lab.server.run("ip", &pair.split(' ').collect::<Vec<_>>()).unwrap();
    // No driver that runs programs at all.
    let kind = ["dummy", "ifb", "bridge"]
        .into_iter()
        .find(|kind| lab.server.run("ip", &["link", "add", "none9", "type", kind]).is_ok())
        .expect("this kernel has one of them");
    for (interface, kind) in [("near9", "veth"), ("none9", kind)] {
        for up in ["far9", interface] {
            lab.server.run("ip", &["link", "set", up, "up"]).unwrap();
        }
        let daemon = start(&[interface]);
        let (mode, reason) = mode_of(&daemon, interface);
        assert_eq!(mode, "tc");
        if is_told() {
            assert_eq!(reason, format!("its driver ({kind}) has no native XDP"));
        } else {
            assert!(reason.starts_with("its driver refuses: "), "{reason}");
        }
        assert!(daemon.stop().unwrap().success());
        assert_eq!(lab.server.attached(interface).unwrap(), [""; 0]);
    }
}

#[test]
fn the_driver_has_no_native_mode() {
    let lab = Lab::new(Topology::Two).unwrap();
    let kinds = ["dummy", "ifb", "bridge"];
    let made: Vec<_> = kinds
        .into_iter()
        .filter(|kind| lab.server.run("ip", &["link", "add", &format!("{kind}9"), "type", kind]).is_ok())
        .collect();
    assert!(!made.is_empty(), "this kernel has none of {kinds:?}");
    for kind in made {
        let interface = format!("{kind}9");
        lab.server.run("ip", &["link", "set", &interface, "up"]).unwrap();
        let refusal = run(&lab, &["srv0", &interface, "--mode", "native"]);
        refusal.expect(
            1,
            &if is_told() { [&interface, kind, "no native XDP", "--mode tc"] } else { refused(&interface) },
        );
        assert_eq!(lab.server.attached(&interface).unwrap(), [""; 0]);
    }
}

#[test]
fn the_second_interface_is_refused_and_the_first_is_left_alone() {
    let lab = Lab::new(Topology::Two).unwrap();
    let refusal = run(&lab, &["srv0", "lo", "--mode", "native"]);
    refusal.expect(
        1,
        if is_told() { &["lo", "no native XDP"] } else { &["lo", "native mode", "cannot attach to"] },
    );
    assert_eq!(lab.server.attached("srv0").unwrap(), [""; 0]);
}
