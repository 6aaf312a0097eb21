//! What is left to the server, and loses nothing by it.

use turn_testkit::lab::Outermost;

use crate::call::{SIZES, Tags, Ways, tag, talk, talk_unseen, two_wires};
use crate::{CUSTOMER, FAMILY_PAIRS, OTHER, OTHER_SERVICE, SERVICE};

/// In generic mode a tag that the device has taken off is out of sight, but still with the packet, and would leave with it: beside the tags
/// that are written, or on the way to somebody who is not in that VLAN. What comes by none goes by any.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_packets_whose_tag_the_device_takes_off_are_the_servers_in_generic_mode() {
    let pairs: [(Tags, Tags); 6] = [
        (&[CUSTOMER], &[OTHER]),
        (&[CUSTOMER], &[CUSTOMER]),
        (&[CUSTOMER], &[]),
        (&[SERVICE, CUSTOMER], &[OTHER]),
        (&[SERVICE, CUSTOMER], &[]),
        (&[SERVICE, CUSTOMER], &[OTHER_SERVICE, OTHER]),
    ];
    let offload = two_wires("generic");
    for (number, (clients, peers)) in pairs.into_iter().enumerate() {
        tag(&offload, Ways { clients, peers, outermost: Outermost::Beside });
        let unseen = offload.count("unseen_tag");
        let talk = talk(&offload, FAMILY_PAIRS[number % 4], SIZES);
        let (to_peer, to_client) = talk.in_kernel();
        assert_eq!(to_peer, 0, "{clients:x?} {peers:x?}: {talk:?}");
        match peers {
            [] => assert!(to_client >= talk.sent * 8 / 10, "{talk:?}\n{}", offload.log()),
            _ => assert_eq!(to_client, 0, "{talk:?}"),
        }
        assert!(offload.count("unseen_tag") - unseen >= talk.sent, "{talk:?}");
    }
}

/// TC has one tag beside the frame, and no room for another. The handshakes of such clients are not read either.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_two_tags_are_the_servers_at_tc() {
    let offload = two_wires("tc");
    for outermost in [Outermost::InFrame, Outermost::Beside] {
        tag(&offload, Ways { clients: &[SERVICE, CUSTOMER], peers: &[OTHER], outermost });
        let tagged = offload.count("vlan_tagged");
        let sent = talk_unseen(&offload, FAMILY_PAIRS[0], SIZES);
        assert!(offload.count("vlan_tagged") - tagged >= sent, "{sent}: {:?}", offload.counted());
        assert_eq!(offload.kernel_packets(), 0, "{outermost:?}");
    }
}
