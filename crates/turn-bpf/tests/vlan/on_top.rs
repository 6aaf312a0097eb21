//! turn-bpf at the VLAN interface itself, where frames come and go without its tag.

use turn_testkit::lab::Outermost;
use turn_testkit::offload::Offload;

use crate::call::{SIZES, is_relayed, talk};
use crate::{CUSTOMER, FAMILY_PAIRS, options};

/// Clients come by the VLAN interface `srv0.10`. Asserts the mode there.
fn at_the_vlan_interface(wanted: &str, mode: &str, outermost: Outermost) -> Offload {
    let options = options().mode(wanted).interfaces(&["srv0.10", "srv1"]);
    let mut offload = options.without_coturn().start_without_daemon();
    let name = offload.lab.tag("srv0", &[CUSTOMER], outermost).unwrap();
    assert_eq!(name, "srv0.10");
    offload.start_coturn();
    offload.start_daemon();
    assert_eq!(offload.daemon_ref().status().unwrap().interfaces[0].mode, mode);
    offload
}

#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_at_the_vlan_interface_packets_have_no_tag() {
    for mode in ["tc", "generic"] {
        for outermost in [Outermost::InFrame, Outermost::Beside] {
            let offload = at_the_vlan_interface(mode, mode, outermost);
            is_relayed(&offload, &FAMILY_PAIRS[1..3], &[("cli0", &[&[CUSTOMER]]), ("peer0", &[&[]])]);
        }
    }
}

/// The driver of VLAN interfaces has no XDP, so that is at TC. Neither does it transmit what a native program redirects: what comes by the
/// other interface is the server's, as doctor says.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_a_vlan_interface_takes_nothing_from_an_interface_in_native_mode() {
    let offload = at_the_vlan_interface("auto", "tc", Outermost::Beside);
    assert_eq!(offload.daemon_ref().status().unwrap().interfaces[1].mode, "native");
    let talk = talk(&offload, FAMILY_PAIRS[0], SIZES);
    let (to_peer, to_client) = talk.in_kernel();
    assert!(to_peer >= talk.sent * 8 / 10, "{talk:?}\n{}", offload.log());
    assert_eq!(to_client, 0, "{talk:?}");
    assert!(offload.count("cannot_redirect") >= talk.sent * 8 / 10, "{:?}", offload.counted());
}
