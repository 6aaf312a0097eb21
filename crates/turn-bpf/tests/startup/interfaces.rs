//! Interfaces that turn-bpf cannot attach to.

use turn_testkit::lab::{Lab, PASS_PROGRAM, Topology, XdpMode};

use crate::attempt::run;

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
            for wanted in ["auto", "native", "generic"] {
                let refusal = run(&lab, &["srv0", "srv1", "--mode", wanted]);
                refusal.expect(1, &[interface, "already has an XDP program", PASS_PROGRAM, name]);
            }
        }
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
        refusal.expect(1, &[&interface, kind, "no native XDP", "--mode generic"]);
        assert_eq!(lab.server.attached(&interface).unwrap(), [""; 0]);
    }
}

#[test]
fn the_second_interface_is_refused_and_the_first_is_left_alone() {
    let lab = Lab::new(Topology::Two).unwrap();
    run(&lab, &["srv0", "lo", "--mode", "native"]).expect(1, &["lo", "no native XDP"]);
    assert_eq!(lab.server.attached("srv0").unwrap(), [""; 0]);
}
