//! What holds for all packets and all flows.

use proptest::collection::vec;
use proptest::prelude::*;
use turn_datapath::flow::path_flags;
use turn_datapath::{FlowKey, Reason, ingress};
use turn_testkit::cases::random::Random;
use turn_testkit::cases::subject::Subject;
use turn_testkit::cases::{FIRST_PART, HERE, Input, NOW, Outcome, Setting, TERMS, Verdict, host};
use turn_testkit::dissect::{Checksum, Network, dissect};
use turn_testkit::memory::MemoryFrame;
use turn_testkit::oracle::NotRelayed;

const CASES: u32 = 4_000;

fn config() -> ProptestConfig {
    // Miri is a thousand times slower.
    let cases = if cfg!(miri) { 20 } else { CASES };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Looks for what a wrong verdict would have been.
fn judge(
    subject: &Subject,
    setting: &Setting,
    input: &Input,
    outcome: &Outcome,
) -> Result<(), TestCaseError> {
    let due = subject.due(input.frame());
    if outcome.verdict == Verdict::Onward {
        prop_assert_eq!(&outcome.frame[..], input.frame(), "what goes on is untouched");
        if let (Input::Received { .. }, Ok(_)) = (input, due) {
            prop_assert!(is_explained(subject, setting, input, outcome.counted[0]), "{:?}", outcome.counted);
        }
        return Ok(());
    }
    prop_assert!(matches!(input, Input::Received { .. }), "what is sent is never rewritten");
    match due {
        Ok(due) => prop_assert!(
            outcome.frame == due,
            "left relayed, right due\n{:02x?}\n{:02x?}",
            outcome.frame,
            due
        ),
        Err(NotRelayed::Flaw(_)) => {
            let is_wrong =
                |frame: &[u8]| matches!(dissect(frame).unwrap().udp_checksum, Checksum::Wrong { .. });
            prop_assert!(is_wrong(input.frame()) && is_wrong(&outcome.frame));
        }
        Err(other) => prop_assert!(false, "relayed, though {other}"),
    }
    Ok(())
}

/// Where the oracle would relay a packet and it was passed, the reason is true.
fn is_explained(subject: &Subject, setting: &Setting, input: &Input, reason: Reason) -> bool {
    let flow = &subject.flow;
    let now = setting.now;
    let packet = dissect(input.frame()).unwrap();
    match reason {
        // A peer's request, where the server was seen granting the peer an allocation at that very address.
        Reason::Control | Reason::ControlTooLong => setting.clients.contains(&subject.key()),
        Reason::VlanTagged => packet.tags.len() > 2,
        Reason::NoLease => flow.lease_until <= now,
        Reason::Behind => flow.noted_until > now && flow.noted_in_a_row < 32,
        Reason::Heartbeat => flow.lease_until > now && flow.heartbeat_at <= now,
        Reason::OtherPath => {
            flow.in_ifindex != HERE
                || flow.in_tags != turn_testkit::cases::subject::tags(&packet.tags).without_priority()
                || flow.in_mac != turn_testkit::cases::subject::mac(packet.destination_mac)
        }
        // One in 65,536 right checksums looks like a partial one.
        Reason::PartialChecksum => packet.udp_checksum == Checksum::Right,
        Reason::NoChecksum => packet.udp_checksum == Checksum::Zero && subject.output.source.is_ipv6(),
        Reason::TooBig => {
            let length = subject.due(input.frame()).unwrap().len() - 14 - flow.out_tags.length();
            let is_fragmentable = matches!(packet.network, Network::V4 { dont_fragment: false, .. });
            let is_4_to_6 = subject.output.source.is_ipv6() && is_fragmentable;
            length > usize::from(flow.link_mtu) || (is_4_to_6 && length > 1280)
        }
        Reason::LongerThanSeen => {
            let length = subject.due(input.frame()).unwrap().len() - 14 - flow.out_tags.length();
            length > usize::from(flow.out_mtu)
        }
        Reason::CannotRedirect => {
            (flow.out_ifindex != HERE || flow.path_flags & path_flags::ONLY_REDIRECT != 0)
                && (flow.path_flags & path_flags::REDIRECT == 0
                    || (flow.path_flags & path_flags::REDIRECT_PARTS == 0
                        && input.frame().len() > FIRST_PART)
                    || !setting.devices.contains(&flow.out_ifindex))
        }
        _ => false,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn what_is_relayed_is_what_the_oracle_says_and_what_is_passed_is_untouched(bytes in vec(any::<u8>(), 0..300)) {
        let Random { subject, setting, input } = Random::new(&bytes);
        let outcome = host::run(&setting, &input);
        judge(&subject, &setting, &input, &outcome)?;
    }

    #[test]
    fn a_flow_changes_only_where_it_may(bytes in vec(any::<u8>(), 0..300)) {
        let Random { setting, input, .. } = Random::new(&bytes);
        let outcome = host::run(&setting, &input);
        for ((_, before), (_, after)) in setting.flows.iter().zip(&outcome.flows) {
            prop_assert_eq!(
                (before.out_destination, before.out_source_port, before.out_destination_port, before.out_channel),
                (after.out_destination, after.out_source_port, after.out_destination_port, after.out_channel)
            );
            prop_assert_eq!(before.label, after.label);
            let is_granted = after.lease_until > before.lease_until;
            // A fragment renews a lease, if it left by the same way; it grants none.
            let has_fragment = outcome.counted.contains(&Reason::EgressFragment);
            match before.lease_until > NOW && has_fragment {
                true => prop_assert_eq!(is_granted, after.noted_until != before.noted_until && is_granted),
                false => {
                    prop_assert_eq!(is_granted, outcome.counted.contains(&Reason::Witness) && before != after)
                }
            }
            if before.lease_until > NOW && outcome.counted[0] != Reason::Witness {
                // While a lease runs, the way of its packets never changes.
                prop_assert_eq!(
                    (before.out_source, before.out_mac_destination, before.out_mac_source, before.out_ifindex),
                    (after.out_source, after.out_mac_destination, after.out_mac_source, after.out_ifindex)
                );
            }
        }
    }

    #[test]
    fn no_bytes_are_too_strange(bytes in vec(any::<u8>(), 0..2000), choices in vec(any::<u8>(), 0..60)) {
        let Random { setting, input, .. } = Random::new(&choices);
        let input = match input {
            Input::Received { interface, .. } => Input::Received { frame: bytes.clone(), interface },
            Input::Sent { sent, .. } => Input::Sent { frame: bytes.clone(), sent },
        };
        prop_assert_eq!(host::run(&setting, &input).frame, bytes);
    }

    #[test]
    fn strange_bytes_behind_a_right_header_are_no_danger(
        choices in vec(any::<u8>(), 0..300),
        at in 0..200_usize,
        bytes in vec(any::<u8>(), 0..20),
    ) {
        let Random { subject, setting, input } = Random::new(&choices);
        let mut frame = input.frame().to_vec();
        for (place, byte) in frame.iter_mut().skip(at).zip(&bytes) {
            *place = *byte;
        }
        let input = Input::Received { frame, interface: HERE };
        let outcome = host::run(&setting, &input);
        judge(&subject, &setting, &input, &outcome)?;
    }

    #[test]
    fn without_headroom_a_frame_is_untouched(choices in vec(any::<u8>(), 0..300), headroom in 0..40_usize) {
        let Random { setting, input, .. } = Random::new(&choices);
        let mut frame = MemoryFrame::with_headroom(input.frame(), headroom);
        let flows = host::maps(&setting);
        match ingress(&mut frame, &flows, &TERMS, HERE, &mut FlowKey::default()) {
            turn_datapath::Action::Pass(_) | turn_datapath::Action::Copy(..) => {
                prop_assert_eq!(frame.bytes(), input.frame());
            }
            turn_datapath::Action::Transmit | turn_datapath::Action::Redirect => {}
        }
    }

    #[test]
    fn messages_lie_in_their_frame(choices in vec(any::<u8>(), 0..300)) {
        let Random { setting, input, .. } = Random::new(&choices);
        let frame = MemoryFrame::new(input.frame());
        if let Input::Sent { sent, .. } = &input {
            for (_, message) in host::look(&frame, &host::maps(&setting), sent).1 {
                prop_assert!(message.at + message.length <= input.frame().len());
                prop_assert!(message.length <= turn_datapath::control::MAX_MESSAGE);
            }
        }
    }
}
