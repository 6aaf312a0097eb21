//! A turn-bpf that runs already.

use std::fs;

use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::scratch::ScratchFolder;

use crate::BINARY;
use crate::attempt::{attached, run, to_its_end};

#[test]
fn the_interface_is_anothers() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    let control = folder.path().join("control.sock");
    for mode in ["native", "tc", "generic"] {
        let mut first =
            Daemon::start(&lab.server, BINARY.as_ref(), &control, &["srv1", "--mode", mode]).unwrap();
        let pid = first.process().id().to_string();
        let refusal = run(&lab, &["srv0", "srv1"]);
        refusal.expect(1, &["turn-bpf is already attached to srv1", &pid]);
        assert_eq!(first.status().unwrap().interfaces.len(), 1);
        assert!(first.stop().unwrap().success());
    }
    assert_eq!(attached(&lab), [""; 0]);
}

#[test]
fn the_control_socket_is_anothers() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    let control = folder.path().join("control.sock");
    let first = Daemon::start(&lab.server, BINARY.as_ref(), &control, &["srv0"]).unwrap();
    assert!(first.ready_line().contains("srv0"), "{}", first.ready_line());
    let mut command = lab.server.command(BINARY);
    command.args(["run", "srv1", "--control"]).arg(&control);
    to_its_end(command).expect(1, &["control socket in use", control.to_str().unwrap()]);
    assert_eq!(lab.server.attached("srv1").unwrap(), [""; 0]);
    assert_eq!(first.status().unwrap().interfaces.len(), 1);
    assert!(first.stop().unwrap().success());

    fs::write(&control, "not a socket").unwrap();
    let mut command = lab.server.command(BINARY);
    command.args(["run", "srv1", "--control"]).arg(&control);
    to_its_end(command).expect(1, &["not a socket", control.to_str().unwrap()]);
    assert_eq!(fs::read(&control).unwrap(), b"not a socket");
}

/// Two networks on one machine, each with its turn-bpf.
#[test]
fn different_interfaces_and_sockets_get_on_with_each_other() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    let daemons = ["srv0", "srv1"].map(|interface| {
        let control = folder.path().join(interface);
        Daemon::start(&lab.server, BINARY.as_ref(), &control, &[interface]).unwrap()
    });
    for (daemon, interface) in daemons.iter().zip(["srv0", "srv1"]) {
        let interfaces = daemon.status().unwrap().interfaces;
        assert_eq!(interfaces.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), [interface]);
    }
    for daemon in daemons {
        assert!(daemon.stop().unwrap().success());
    }
    assert_eq!(attached(&lab), [""; 0]);
}
