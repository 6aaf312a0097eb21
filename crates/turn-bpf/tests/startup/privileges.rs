//! Users who may not, and users who may just enough.

use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::unprivileged::PublicFolder;

use crate::BINARY;
use crate::attempt::{Refusal, attached, to_its_end};

fn run_as_nobody(lab: &Lab, capabilities: &str) -> Refusal {
    let folder = PublicFolder::with(BINARY).unwrap();
    let mut command = lab.server.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    if !capabilities.is_empty() {
        command.arg(format!("--inh-caps={capabilities}")).arg(format!("--ambient-caps={capabilities}"));
    }
    command.arg(folder.binary()).args(["run", "srv0", "--control"]).arg(folder.path().join("control.sock"));
    let refusal = to_its_end(command);
    assert_eq!(attached(lab), [""; 0]);
    refusal
}

#[test]
fn missing_capabilities_are_named() {
    let lab = Lab::new(Topology::Two).unwrap();
    let refusal = run_as_nobody(&lab, "");
    refusal.expect(1, &["no privilege", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing"]);
    run_as_nobody(&lab, "+net_admin").expect(1, &["no privilege", "CAP_BPF, CAP_PERFMON missing"]);
}

#[test]
fn three_capabilities_are_enough() {
    let lab = Lab::new(Topology::Two).unwrap();
    let folder = PublicFolder::with(BINARY).unwrap();
    let wrapper = folder.as_nobody().unwrap();
    let control = folder.path().join("control.sock");
    let daemon = Daemon::start(&lab.server, &wrapper, &control, &["srv0", "srv1"]).unwrap();
    assert_eq!(daemon.status().unwrap().interfaces.len(), 2);
    assert_eq!(
        daemon.log().matches("WARN").count(),
        daemon.log().matches("tc mode").count(),
        "{}",
        daemon.log()
    );
    assert!(daemon.stop().unwrap().success());
    assert_eq!(attached(&lab), [""; 0]);
}
