//! Where the egress program hangs: tcx from 6.6 on, before that a filter of the clsact qdisc, which others may use too.

use turn_bpf::host::KernelRelease;
use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::scratch::ScratchFolder;

use crate::BINARY;
use crate::attempt::attached;

fn has_tcx() -> bool {
    KernelRelease::running().is_some_and(|kernel| kernel >= KernelRelease { major: 6, minor: 6 })
}

fn start(lab: &Lab, folder: &ScratchFolder) -> Daemon {
    Daemon::start(&lab.server, BINARY.as_ref(), &folder.path().join("control.sock"), &["srv0"]).unwrap()
}

fn qdiscs(lab: &Lab) -> String {
    lab.server.output("tc", &["qdisc", "show", "dev", "srv0"]).unwrap()
}

/// Programs at egress, as shown by tc or by tcx.
fn at_egress(lab: &Lab) -> Vec<String> {
    let attached = lab.server.attached("srv0").unwrap().into_iter();
    attached.filter(|line| line.contains("turn_bpf_egress") || line.contains("tcx")).collect()
}

#[test]
fn the_program_is_attached_once_and_detached_again() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    for _ in 0..2 {
        let daemon = start(&lab, &folder);
        assert_eq!(at_egress(&lab).len(), 1, "{:?}", at_egress(&lab));
        assert_eq!(qdiscs(&lab).contains("clsact"), !has_tcx(), "{}", qdiscs(&lab));
        assert!(daemon.stop().unwrap().success());
        assert_eq!(attached(&lab), [""; 0]);
    }
}

#[test]
fn the_clsact_of_others_stays() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    lab.server.run("tc", &["qdisc", "add", "dev", "srv0", "clsact"]).unwrap();
    let before = qdiscs(&lab);
    let daemon = start(&lab, &folder);
    assert_eq!(at_egress(&lab).len(), 1, "{:?}", at_egress(&lab));
    assert!(daemon.stop().unwrap().success());
    assert_eq!(qdiscs(&lab), before);
    assert_eq!(attached(&lab), [""; 0]);
}

/// A filter of clsact outlives the process that made it. It lets everything go onward, and the next start replaces it.
#[test]
fn after_a_kill_the_program_is_there_once() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = ScratchFolder::new("control").unwrap();
    start(&lab, &folder).kill().unwrap();
    assert_eq!(at_egress(&lab).len(), usize::from(!has_tcx()), "{:?}", at_egress(&lab));
    let daemon = start(&lab, &folder);
    assert_eq!(at_egress(&lab).len(), 1, "{:?}", at_egress(&lab));
    assert!(daemon.stop().unwrap().success());
    assert_eq!(attached(&lab), [""; 0]);
}
