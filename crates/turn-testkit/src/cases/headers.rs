//! Fields of the IP headers of packets that are relayed.

use turn_datapath::Reason;
use turn_datapath::flow::path_flags;

use super::Case;
use super::draft::Draft;
use super::subject::{DATA, Subject};

/// One less, as every router does; the last hop is the server's.
pub fn ip1_hop_limit_is_decremented() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for hop_limit in [255, 128, 64, 3, 2] {
            let frame = subject.packet(DATA).hop_limit(hop_limit).build();
            let case = Draft::received(format!("hop limit {hop_limit}"), &subject, frame).relayed();
            let at = if subject.output.source.is_ipv4() { 22 } else { 21 };
            assert_eq!(case.outcome.frame[at], hop_limit - 1, "{}", case.name);
            cases.push(case);
        }
        for hop_limit in [1, 0] {
            let frame = subject.packet(DATA).hop_limit(hop_limit).build();
            let draft = Draft::received(format!("hop limit {hop_limit}"), &subject, frame);
            cases.push(draft.passes(Reason::HopLimit));
        }
    }
    cases
}

/// All 64 DSCP with all 4 ECN.
pub fn ip2_to_ip5_dscp_and_ecn_are_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for class in 0..=255 {
            let frame = subject.packet(DATA).traffic_class(class).build();
            let name = format!("DSCP {}, ECN {}", class >> 2, class & 3);
            cases.push(Draft::received(name, &subject, frame).relayed());
        }
    }
    cases
}

/// The flow label is the flow's own, whatever came in.
pub fn ip6_flow_label_is_not_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for own in [0, 1, 0xf_ffff, 0xffff_ffff, 0x1234_5678] {
            let subject = subject.but(|flow| flow.label = own);
            for label in [0, 1, 0xf_ffff, 0x5a5a5] {
                let frame = subject.packet(DATA).flow_label(label).traffic_class(0xb9).build();
                let name = format!("label {label:#x}, own {own:#x}");
                cases.push(Draft::received(name, &subject, frame).relayed());
            }
        }
    }
    cases
}

/// Packets that may be fragmented differ in their identification, though the ones that came in do not. With DF it is zero.
pub fn ip7_identifications_are_the_flows_own() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all().into_iter().filter(|subject| subject.output.source.is_ipv4()) {
        for has_df in [false, true] {
            let mut seen = std::collections::HashSet::new();
            for packets in [0, 1, 2, 0xffff, 0x1_0001] {
                let subject = subject.but(|flow| {
                    flow.path_flags = if has_df { path_flags::DONT_FRAGMENT } else { 0 };
                    flow.label = 0xffff_fff0;
                    flow.kernel_packets = packets;
                });
                let frame = subject.packet(DATA).identification(0x1111).dont_fragment(false).build();
                let name = format!("{packets} packets before, DF {has_df}");
                let case = Draft::received(name, &subject, frame).relayed();
                seen.insert(case.outcome.frame[18..20].to_vec());
                cases.push(case);
            }
            assert_eq!(seen.len(), if has_df { 1 } else { 4 }, "{}", subject.name());
        }
    }
    cases
}

/// DF as the server sends it, whatever came in.
pub fn ip8_df_is_as_the_witness_has_it() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::all() {
        for servers in [false, true] {
            for senders in [false, true] {
                let subject = subject.but(|flow| {
                    flow.path_flags = if servers { path_flags::DONT_FRAGMENT } else { 0 };
                });
                let frame = subject.packet(DATA).dont_fragment(senders).build();
                let name = format!("the server's {servers}, the sender's {senders}");
                let case = Draft::received(name, &subject, frame).relayed();
                if subject.output.source.is_ipv4() {
                    assert_eq!(case.outcome.frame[20] & 0x40 != 0, servers, "{}", case.name);
                }
                cases.push(case);
            }
        }
    }
    cases
}
