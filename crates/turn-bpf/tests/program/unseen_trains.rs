//! What generic XDP gets as one datagram and is several: their headers are those of one, and their checksum that of the first.

use turn_datapath::Reason;
use turn_testkit::cases::draft::Draft;
use turn_testkit::cases::subject::{Subject, data};
use turn_testkit::cases::{Input, Verdict};
use turn_testkit::packet::UdpChecksum;

use crate::kernel::{Ingress, Kernel};

/// A datagram of each length is relayed as by the native program, with a right checksum or none.
#[test]
fn single_datagrams_are_relayed() {
    let mut kernel = Kernel::shared(Ingress::Generic);
    for subject in Subject::all() {
        for length in (0..70).chain([1023, 1024, 1199, 1200, 1300]) {
            let draft = Draft::received("single", &subject, subject.packet(&data(length)).build());
            let outcome = kernel.run(&draft.clone().into_setting(), &draft.into_input());
            let what = format!("{}, {length} bytes", subject.name());
            assert_eq!(
                (outcome.verdict, outcome.counted),
                (Verdict::Transmit, vec![Reason::Relayed]),
                "{what}"
            );
        }
    }
    for subject in Subject::all().into_iter().filter(|subject| {
        [subject.input.source, subject.output.source].iter().all(|address| address.is_ipv4())
    }) {
        let frame = subject.packet(&data(100)).udp_checksum(UdpChecksum::Zero).build();
        let draft = Draft::received("without a checksum", &subject, frame);
        let outcome = kernel.run(&draft.clone().into_setting(), &draft.into_input());
        assert_eq!(outcome.verdict, Verdict::Transmit, "{}", subject.name());
    }
}

/// Two of them, with the checksum of the first.
#[test]
fn datagrams_that_were_merged_pass() {
    let mut kernel = Kernel::shared(Ingress::Generic);
    for subject in Subject::all() {
        for length in [2, 3, 20, 200, 201, 600] {
            let first = subject.packet(&data(length)).build();
            let whole = subject.packet(&[data(length), data(length / 2)].concat());
            let at = 14 + if subject.input.source.is_ipv4() { 20 } else { 40 } + 6;
            let mut frame = whole.build();
            frame[at..at + 2].copy_from_slice(&first[at..at + 2]);
            let draft = Draft::received("merged", &subject, frame);
            let (setting, input) = (draft.clone().into_setting(), draft.into_input());
            let outcome = kernel.run(&setting, &input);
            let what = format!("{}, {length} bytes", subject.name());
            assert_eq!(
                (outcome.verdict, outcome.counted),
                (Verdict::Onward, vec![Reason::UnseenTrain]),
                "{what}"
            );
            assert_eq!((outcome.frame.as_slice(), outcome.flows), (input.frame(), setting.flows), "{what}");
        }
    }
}

/// Requests and what is not UDP are dealt with as ever.
#[test]
fn everything_else_is_as_in_the_driver() {
    let frames = [
        turn_testkit::packet::Packet::new(turn_testkit::role::CLIENT, turn_testkit::role::SERVER).build(),
        vec![0; 60],
    ];
    for frame in frames {
        let input = Input::Received { frame, interface: turn_testkit::cases::HERE };
        let outcomes = [Ingress::Xdp, Ingress::Generic].map(|ingress| {
            let mut kernel = Kernel::shared(ingress);
            let done = kernel.execute(&input);
            (done, kernel.newly_counted())
        });
        assert_eq!(outcomes[0], outcomes[1]);
    }
}
