//! Mistakes on the command line: exit code 2, and before anything is touched.

use std::process::Command;

use turn_testkit::lab::{Lab, Topology};

use crate::BINARY;
use crate::attempt::{run, to_its_end};

#[test]
fn a_lease_that_is_not_longer_than_the_heartbeat() {
    let lab = Lab::new(Topology::Two).unwrap();
    for arguments in [
        &["srv0", "--lease", "3s", "--heartbeat", "3s"][..],
        &["srv0", "--lease", "2s"],
        &["srv0", "--heartbeat", "10s"],
        &["srv0", "--heartbeat", "0s"],
        &["srv0", "--lease", "0s"],
    ] {
        run(&lab, arguments).expect(2, &["lease", "must be longer than the heartbeat"]);
    }
    run(&lab, &["srv0", "--lease", "soon"]).expect(2, &["--lease"]);
}

#[test]
fn an_impossible_number_of_flows() {
    let lab = Lab::new(Topology::Two).unwrap();
    for number in ["0", "1", "-5", "4194305", "99999999999999999999", "many", ""] {
        run(&lab, &["srv0", &format!("--max-flows={number}")]).expect(2, &["--max-flows"]);
    }
}

#[test]
fn no_interface_and_no_such_mode() {
    let lab = Lab::new(Topology::Two).unwrap();
    run(&lab, &[]).expect(2, &["IFACE"]);
    run(&lab, &["srv0", "--mode", "fast"]).expect(2, &["auto", "native", "tc", "generic"]);
}

#[test]
fn queries_without_a_daemon() {
    for query in ["status", "sessions"] {
        let mut command = Command::new(BINARY);
        command.args([query, "--control", "/nonexistent/control.sock"]);
        to_its_end(command).expect(3, &["no turn-bpf runs", "/nonexistent/control.sock"]);
    }
}
