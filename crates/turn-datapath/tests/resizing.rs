//! Frames that cannot be resized as a translation needs, and where redirected frames go.

use turn_datapath::{Action, FlowKey, Frame, Reason, ingress};
use turn_testkit::cases::draft::Draft;
use turn_testkit::cases::subject::{DATA, Subject};
use turn_testkit::cases::{ELSEWHERE, HERE, SENT, TERMS, host};
use turn_testkit::memory::MemoryFrame;
use turn_testkit::packet::{TPID_8021AD, TPID_8021Q, Tag};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A frame whose end cannot be cut, as some drivers' multi-buffer frames.
struct Uncuttable(MemoryFrame);

impl Frame for Uncuttable {
    fn behind(&self, end: usize) -> Option<usize> {
        self.0.behind(end)
    }

    fn is_whole(&self, end: usize) -> bool {
        self.0.is_whole(end)
    }

    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        self.0.get(at)
    }

    fn put<H: IntoBytes + Immutable + Copy>(&mut self, at: usize, header: &H) -> bool {
        self.0.put(at, header)
    }

    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool {
        self.0.copy(at, length, buffer)
    }

    fn move_head(&mut self, by: i32) -> bool {
        self.0.move_head(by)
    }

    fn cut_tail(&mut self, _by: usize) -> bool {
        false
    }
}

/// Every flow with as many tags in and out as there may be.
fn tagged() -> Vec<Subject> {
    let tags = [Tag { tpid: TPID_8021AD, tci: 0x2005 }, Tag { tpid: TPID_8021Q, tci: 6 }];
    let numbers = (0..3).flat_map(|ins| (0..3).map(move |outs| (ins, outs)));
    let tagged = numbers.flat_map(|(ins, outs)| {
        Subject::all().into_iter().map(move |subject| subject.tagged(&tags[..ins], &tags[..outs]))
    });
    tagged.collect()
}

fn growth(subject: &Subject) -> usize {
    subject.servers(DATA).build().len().saturating_sub(subject.packet(DATA).build().len())
}

#[test]
fn headroom_is_needed_to_the_byte() {
    for subject in tagged() {
        let input = subject.packet(DATA).build();
        for headroom in 0..=growth(&subject) {
            let flows = host::maps(&Draft::received("", &subject, Vec::new()).into_setting());
            let mut frame = MemoryFrame::with_headroom(&input, headroom);
            let action = ingress(&mut frame, &flows, &TERMS, HERE, &mut FlowKey::default());
            let after = flows.peek(&subject.key()).unwrap();
            if headroom < growth(&subject) {
                assert_eq!(action, Action::Pass(Reason::NoHeadroom), "{}, {headroom}", subject.name());
                assert_eq!(frame.bytes(), input);
                assert_eq!(after.spilled_packets, subject.flow.spilled_packets + 1);
                assert_eq!(after.kernel_packets, subject.flow.kernel_packets);
            } else {
                assert_eq!(action, Action::Transmit, "{}, {headroom}", subject.name());
                assert_eq!(frame.bytes(), subject.due(&input).unwrap());
            }
        }
    }
}

#[test]
fn a_frame_whose_end_stays_is_untouched() {
    for subject in Subject::all() {
        for (padding, trailer) in [(&[][..], &[1, 2, 3][..]), (&[4], &[]), (&[4], &[1; 30])] {
            let padding = if subject.input.channel.is_some() { padding } else { &[] };
            let input = subject.padded(DATA, padding).trailer(trailer).build();
            let mut frame = Uncuttable(MemoryFrame::new(&input));
            let flows = host::maps(&Draft::received("", &subject, Vec::new()).into_setting());
            let action = ingress(&mut frame, &flows, &TERMS, HERE, &mut FlowKey::default());
            if padding.is_empty() && trailer.is_empty() {
                assert_eq!(action, Action::Transmit);
            } else {
                assert_eq!(action, Action::Pass(Reason::NoHeadroom), "{}", subject.name());
                assert_eq!(frame.0.bytes(), input);
            }
        }
    }
}

/// A driver may put as little in the first part as it likes: relayed where that holds the headers, else untouched.
#[test]
fn headers_are_needed_in_the_first_part_and_nothing_else() {
    for subject in tagged() {
        for (padding, trailer) in [(&[][..], &[][..]), (&[4], &[]), (&[4], &[1; 9])] {
            let padding = if subject.input.channel.is_some() { padding } else { &[] };
            let input = subject.padded(DATA, padding).trailer(trailer).build();
            let headers = input.len() - trailer.len() - padding.len() - DATA.len();
            for first_part in 0..=input.len() {
                let flows = host::maps(&Draft::received("", &subject, Vec::new()).into_setting());
                let mut frame = MemoryFrame::in_parts(&input, first_part);
                let name = format!("{}, {first_part} of {}", subject.name(), input.len());
                match ingress(&mut frame, &flows, &TERMS, HERE, &mut FlowKey::default()) {
                    Action::Transmit => {
                        let due = subject.due(&input).unwrap();
                        assert!(first_part >= headers, "{name}");
                        // What lies in other parts behind the whole datagram may stay, as a trailer.
                        assert_eq!(frame.bytes()[..due.len()], due, "{name}");
                        let may_stay =
                            [headers + DATA.len(), input.len() - trailer.len()].contains(&first_part);
                        assert!(frame.bytes().len() == due.len() || may_stay, "{name}");
                    }
                    Action::Pass(_) => {
                        assert!(first_part < headers, "{name}");
                        assert_eq!(frame.bytes(), input, "{name}");
                    }
                    other => panic!("{name}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn redirected_frames_go_to_the_interface_of_the_witness() {
    for subject in Subject::all() {
        let subject = subject.but(|flow| flow.out_ifindex = ELSEWHERE);
        let flows = host::maps(&Draft::received("", &subject, Vec::new()).into_setting());
        let mut frame = MemoryFrame::new(&subject.packet(DATA).build());
        assert_eq!(ingress(&mut frame, &flows, &TERMS, HERE, &mut FlowKey::default()), Action::Redirect);
        assert_eq!(flows.take_redirects(), [ELSEWHERE]);
        // What is passed is never made ready to be redirected.
        let mut last_hop = MemoryFrame::new(&subject.packet(DATA).hop_limit(1).build());
        assert_eq!(
            ingress(&mut last_hop, &flows, &TERMS, HERE, &mut FlowKey::default()),
            Action::Pass(Reason::HopLimit)
        );
        assert!(flows.take_redirects().is_empty());
    }
}

#[test]
fn what_is_sent_is_only_read() {
    for subject in Subject::all() {
        let input = subject.servers(DATA).build();
        let frame = MemoryFrame::with_headroom(&input, 0);
        let draft = Draft::sent("", &subject.awaiting(DATA), Vec::new());
        let (counted, _) = host::look(&frame, &host::maps(&draft.into_setting()), &SENT);
        assert_eq!((&counted[..], frame.bytes()), (&[Reason::Witness][..], &input[..]));
    }
}
