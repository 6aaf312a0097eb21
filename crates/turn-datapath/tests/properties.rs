//! What holds for all packets and all flows.

use proptest::collection::vec;
use proptest::prelude::*;
use turn_datapath::{FlowKey, Reason, ingress};
use turn_testkit::cases::random::Random;
use turn_testkit::cases::subject::Subject;
use turn_testkit::cases::{FIRST_PART, HERE, Input, NOW, Outcome, Setting, TERMS, Verdict, host, verdict};
use turn_testkit::memory::MemoryFrame;

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
    if outcome.verdict == Verdict::Onward {
        prop_assert_eq!(&outcome.frame[..], input.frame(), "what goes on is untouched");
        if let (Input::Received { frame, .. }, Ok(_)) = (input, subject.due(input.frame())) {
            let reason = outcome.counted[0];
            prop_assert!(verdict::is_explained(subject, setting, frame, FIRST_PART, reason), "{reason:?}");
        }
        return Ok(());
    }
    prop_assert!(matches!(input, Input::Received { .. }), "what is sent is never rewritten");
    let judged = verdict::of_relayed(subject, input.frame(), &outcome.frame);
    prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
    Ok(())
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
            if before.lease_until > NOW && !outcome.counted.contains(&Reason::Witness) {
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
            Input::Passed { tag, .. } => Input::Passed { frame: bytes.clone(), tag },
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
