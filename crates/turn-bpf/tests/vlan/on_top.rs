//! turn-bpf at the VLAN interface itself, where frames come and go without its tag.

use turn_testkit::lab::Outermost;

use crate::call::is_relayed;
use crate::{CUSTOMER, FAMILY_PAIRS, options};

/// The driver of VLAN interfaces has no XDP, so that is at TC. Generic mode works as well.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_at_the_vlan_interface_packets_have_no_tag() {
    for (wanted, mode) in [("auto", "tc"), ("generic", "generic")] {
        for outermost in [Outermost::InFrame, Outermost::Beside] {
            let options = options().mode(wanted).interfaces(&["srv0.10", "srv1"]);
            let mut offload = options.without_coturn().start_without_daemon();
            let name = offload.lab.tag("srv0", &[CUSTOMER], outermost).unwrap();
            assert_eq!(name, "srv0.10");
            offload.start_coturn();
            offload.start_daemon();
            let interfaces = offload.daemon().status().unwrap().interfaces;
            assert_eq!(interfaces[0].mode, mode);
            is_relayed(&offload, &FAMILY_PAIRS[1..3], &[("cli0", &[&[CUSTOMER]]), ("peer0", &[&[]])]);
        }
    }
}
