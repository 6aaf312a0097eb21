//! What is relayed by VLANs: equal and different ones on both sides, one or two, or none on one side.

use turn_testkit::lab::Outermost;

use crate::call::{Tags, Ways, is_relayed, one_wire, tag, two_wires};
use crate::{CUSTOMER, FAMILY_PAIRS, OTHER, OTHER_SERVICE, SERVICE};

/// Tags of clients and of peers.
const PAIRS: [(Tags, Tags); 6] = [
    (&[CUSTOMER], &[OTHER]),
    (&[CUSTOMER], &[CUSTOMER]),
    (&[CUSTOMER], &[]),
    (&[SERVICE, CUSTOMER], &[OTHER]),
    (&[SERVICE, CUSTOMER], &[]),
    (&[SERVICE, CUSTOMER], &[OTHER_SERVICE, OTHER]),
];
/// Of these TC relays: one tag at the most.
const WITH_ONE: usize = 3;

/// All of them by two interfaces, the first of them with every pair of families.
fn by_two_wires(mode: &str, outermost: &[Outermost], pairs: &[(Tags, Tags)]) {
    let offload = two_wires(mode);
    for outermost in outermost.iter().copied() {
        println!("{mode}, {outermost:?}");
        for (number, (clients, peers)) in pairs.iter().copied().enumerate() {
            let families = if number == 0 { &FAMILY_PAIRS[..] } else { &FAMILY_PAIRS[number % 4..][..1] };
            tag(&offload, Ways { clients, peers, outermost });
            is_relayed(&offload, families, &[("cli0", &[clients]), ("peer0", &[peers])]);
        }
    }
}

/// Of a tag that the device takes off XDP sees nothing on the way in. On the way out it writes it into the frame.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_one_tag_and_two_in_native_mode() {
    by_two_wires("native", &[Outermost::InFrame, Outermost::Beside], &PAIRS);
}

#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_one_tag_and_two_in_the_frame_in_generic_mode() {
    by_two_wires("generic", &[Outermost::InFrame], &PAIRS);
}

#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_one_tag_at_tc() {
    by_two_wires("tc", &[Outermost::InFrame, Outermost::Beside], &PAIRS[..WITH_ONE]);
}

/// Clients and peers come by one interface, and by one VLAN or each by their own.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_one_interface_with_one_vlan_or_two() {
    for mode in ["native", "generic", "tc"] {
        let both = [Outermost::InFrame, Outermost::Beside];
        let outermost = if mode == "generic" { &both[..1] } else { &both };
        let offload = one_wire(mode);
        for outermost in outermost.iter().copied() {
            println!("{mode}, {outermost:?}");
            offload.lab.tag("srv0", &[CUSTOMER], outermost).unwrap();
            is_relayed(&offload, &FAMILY_PAIRS[..1], &[("rtr-srv", &[&[CUSTOMER]])]);
            offload.lab.tag_peers(OTHER).unwrap();
            is_relayed(&offload, &FAMILY_PAIRS[2..], &[("rtr-srv", &[&[CUSTOMER], &[OTHER]])]);
        }
    }
}
