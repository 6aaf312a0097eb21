//! The list of reasons.

use std::collections::HashSet;

use turn_datapath::Reason;

#[test]
fn numbers_are_the_order_of_the_list() {
    for (number, reason) in Reason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, number, "{reason:?}");
    }
}

#[test]
fn labels_are_distinct_and_plain() {
    let labels: HashSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    assert_eq!(labels.len(), Reason::COUNT);
    for reason in Reason::ALL {
        assert!(
            reason
                .label()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{reason:?}"
        );
        assert!(reason.explanation().ends_with('.'), "{reason:?}");
    }
}

#[test]
fn what_comes_in_is_counted_under_one_heading() {
    use Reason::*;
    // Of packets that leave, of either, and of packets that were counted before.
    let others = [
        EgressOther,
        EgressControl,
        Witness,
        OtherPayload,
        PathChanged,
        EgressTrain,
        ControlLost,
        TransmitFailed,
        Candidate,
        EgressFragment,
        UnseenTag,
    ];
    for reason in Reason::ALL {
        let headings = [reason.is_relayed(), reason.is_spilled(), reason.is_passed()];
        let expected = usize::from(!others.contains(&reason));
        assert_eq!(headings.into_iter().filter(|is| *is).count(), expected, "{reason:?}");
    }
}
