//! Packets up to the MTU.

use turn_testkit::lab::Outermost;

use crate::call::{Ways, tag, talk, talk_unseen, two_wires};
use crate::{CUSTOMER, FAMILY_PAIRS, SERVICE};

/// What a client's way takes: 1500 bytes with the headers of IP, UDP and ChannelData.
const LONGEST: usize = 1500 - 20 - 8 - 4;

/// The kernel takes redirected frames with one tag more than its MTU, and throws away those with two; while a tag that the device inserts does
/// not count. So the longest packets, which only fit by two tags in that way, are the server's.
#[test]
#[ignore = "needs 8021q: cargo xtask vm"]
fn op7_no_packet_is_lost_for_its_length() {
    let outermost = Outermost::Beside;
    let ways = [
        Ways { clients: &[CUSTOMER], peers: &[], outermost },
        Ways { clients: &[SERVICE, CUSTOMER], peers: &[], outermost },
        Ways { clients: &[SERVICE, CUSTOMER], peers: &[CUSTOMER], outermost },
    ];
    for mode in ["native", "generic", "tc"] {
        let offload = two_wires(mode);
        for ways in ways {
            tag(&offload, ways);
            let sizes = LONGEST - 7..=LONGEST;
            if mode == "tc" && ways.clients.len() == 2 {
                talk_unseen(&offload, FAMILY_PAIRS[0], sizes);
                continue;
            }
            let talk = talk(&offload, FAMILY_PAIRS[0], sizes);
            assert_eq!(offload.count("transmit_failed"), 0, "{mode} {ways:?}: {talk:?}");
            if mode == "native" {
                let (_, to_client) = talk.in_kernel();
                // Of eight lengths four.
                let least = if ways.clients.len() == 2 { talk.sent * 3 / 10 } else { talk.sent * 8 / 10 };
                assert!(to_client >= least, "{ways:?}: {talk:?}");
            }
        }
    }
}
