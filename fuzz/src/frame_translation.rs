//! One frame that comes in by an interface.
//!
//! What is relayed is, byte for byte, what the oracle makes of it; what is passed is untouched, and for a true reason.

use turn_datapath::flow::path_flags;
use turn_datapath::{Action, Flow, FlowKey, Reason, ingress, path_mtu};
use turn_testkit::cases::draft::Draft;
use turn_testkit::cases::subject::{Subject, mac};
use turn_testkit::cases::{ELSEWHERE, HERE, NOW, SECOND, Setting, TERMS, host, verdict};
use turn_testkit::checksum::{internet_checksum, udp_checksum};
use turn_testkit::dissect::{Network, dissect};
use turn_testkit::memory::{HEADROOM, MemoryFrame};
use turn_testkit::packet::{TPID_8021AD, TPID_8021Q, Tag};
use turn_testkit::role::CLIENT_MAC;
use turn_testkit::turn_client::message::{Class, Message};

use crate::bytes::Bytes;

/// Bytes before the frame: which flow, what is repaired, tags in and out, path, MTU, state, headroom, first part.
pub const PREFIX: usize = 9;

/// Puts a right IPv4 header checksum into the frame before it is looked at.
pub const REPAIR_HEADER: u8 = 1;
/// The same for the UDP checksum.
pub const REPAIR_UDP: u8 = 2;

/// Runs an input and judges what becomes of it.
pub fn check(input: &[u8]) {
    let bytes = &mut Bytes::new(input);
    let mut subject = bytes.of(&Subject::all());
    let repairs = bytes.byte();
    let tags_of = |choice: u8| -> Vec<Tag> {
        let (service, customer) = (Tag { tpid: TPID_8021AD, tci: 0x2005 }, Tag { tpid: TPID_8021Q, tci: 6 });
        match choice % 4 {
            0 => vec![],
            1 => vec![customer],
            2 => vec![service],
            _ => vec![service, customer],
        }
    };
    subject = subject.tagged(&tags_of(bytes.byte()), &tags_of(bytes.byte()));
    let mut draft = Draft::received("", &subject, Vec::new());
    let path = bytes.byte();
    subject.flow.path_flags ^= u32::from(path & 0x0f);
    if path & 0x10 != 0 {
        subject.flow.out_ifindex = ELSEWHERE;
    }
    if path & 0x20 != 0 {
        draft = draft.setting(|setting| setting.devices.clear());
    }
    subject.flow.link_mtu = bytes.of(&[1500, 1280, 576, 9000, 0, 70, u16::MAX]);
    subject.flow.out_mtu = subject.flow.link_mtu - subject.flow.link_mtu / 8 * u16::from(path >> 6);
    let state = bytes.byte();
    let flow = &mut subject.flow;
    flow.lease_until = [NOW + 7 * SECOND, NOW + 1, NOW, 0][usize::from(state & 3)];
    flow.heartbeat_at = [NOW + SECOND, NOW][usize::from(state >> 2 & 1)];
    flow.noted_until = [0, NOW + 1, NOW][usize::from(state >> 3 & 3) % 3];
    flow.noted_in_a_row = [0, 31, 32, 256][usize::from(state >> 5 & 3)];
    if state & 0x80 != 0 {
        flow.in_mac = mac(CLIENT_MAC);
    }
    let headroom = match bytes.byte() {
        0 => HEADROOM,
        bytes => usize::from(bytes - 1),
    };
    let first_part = match bytes.byte() {
        0 => usize::MAX,
        halves => 14 + 2 * usize::from(halves),
    };
    let mut setting = draft.into_setting();
    setting.flows[0].1 = subject.flow;
    let frame = repaired(bytes.rest().to_vec(), repairs);
    judge(&subject, &setting, &frame, headroom, first_part);
}

fn judge(subject: &Subject, setting: &Setting, input: &[u8], headroom: usize, first_part: usize) {
    let flows = host::maps(setting);
    let mut frame = MemoryFrame::with_headroom(input, headroom).split(first_part);
    let mut key = FlowKey::default();
    let action = ingress(&mut frame, &flows, &TERMS, HERE, &mut key);
    let after = flows.peek(&subject.key()).expect("nobody took the flow away");
    let before = subject.flow;
    let output = frame.bytes();
    let first_part = first_part.min(input.len());

    let (relayed, spilled) =
        (after.kernel_packets - before.kernel_packets, after.spilled_packets - before.spilled_packets);
    match action {
        Action::Pass(reason) => {
            assert_eq!(output, input, "what goes on is untouched ({reason:?})");
            assert_eq!((relayed, spilled), (0, u64::from(reason.is_spilled())), "{reason:?}");
            if reason == Reason::NotUdp {
                // It may be what a router says of the path. That changes nothing but how long packets may be.
                path_mtu::hear(&frame, &flows, &TERMS);
                let heard = flows.peek(&subject.key()).expect("nobody took the flow away");
                let Flow { out_mtu, out_mtu_until, longer_at, .. } = heard;
                assert_eq!(heard, Flow { out_mtu, out_mtu_until, longer_at, ..after });
                assert!(out_mtu <= after.out_mtu, "longer by the word of a router");
                assert_eq!(frame.bytes(), input);
            }
            if subject.due(input).is_ok() {
                let is_explained = match reason {
                    Reason::NoHeadroom => headroom < growth(subject, input),
                    // The headers are not in one piece.
                    Reason::NotIp | Reason::Malformed | Reason::NoFlow => first_part < 18 + headers(input),
                    _ => verdict::is_explained(subject, setting, input, first_part, reason),
                };
                assert!(is_explained, "passed because of {reason:?}, which is not true");
            }
        }
        Action::Copy(message) => {
            assert_eq!(output, input, "what is copied is untouched");
            assert_eq!((relayed, spilled), (0, 0));
            let copied = &input[message.at..message.at + message.length];
            let packet = dissect(input).expect("a copied message lies in a datagram");
            assert_eq!(copied, packet.payload, "the copy is the whole datagram");
            assert_eq!(key.source_port.value(), packet.source.port());
            if let Ok(message) = Message::parse(copied) {
                assert_eq!(message.class, Class::Request, "nothing else is copied on the way in");
            }
        }
        Action::Transmit | Action::Redirect => {
            assert_eq!((relayed, spilled), (1, 0), "counted once");
            let length = match (subject.due(input), dissect(output)) {
                (Ok(due), _) => due.len(),
                (Err(_), Ok(packet)) => output.len() - packet.trailer.len(),
                (Err(_), Err(flaw)) => panic!("left as no datagram: {flaw}"),
            };
            // What lies in other parts behind the whole datagram may stay, as a trailer.
            assert!(output.len() == length || first_part < input.len(), "surplus behind the datagram");
            if let Err(wrong) = verdict::of_relayed(subject, input, &output[..length]) {
                panic!("{wrong}");
            }
            let data = u64::try_from(length - headers(&output[..length])).expect("short");
            let channel_data = if subject.output.channel.is_some() { 4 } else { 0 };
            assert_eq!(
                after.kernel_bytes - before.kernel_bytes,
                data - channel_data,
                "bytes of application data"
            );
            let leaves_elsewhere =
                before.out_ifindex != HERE || before.path_flags & path_flags::ONLY_REDIRECT != 0;
            assert_eq!(action == Action::Redirect, leaves_elsewhere);
            assert_eq!(flows.take_redirects().len(), usize::from(leaves_elsewhere));
        }
    }
}

/// Bytes from the Ethernet header to the end of the UDP header.
fn headers(frame: &[u8]) -> usize {
    let packet = dissect(frame).expect("a datagram");
    frame.len() - packet.trailer.len() - packet.surplus.len() - packet.payload.len()
}

/// By how much the headers become longer.
fn growth(subject: &Subject, input: &[u8]) -> usize {
    let due = subject.due(input).expect("relayed by the oracle");
    let channel_data = |channel: Option<u16>| if channel.is_some() { 4 } else { 0 };
    let before = headers(input) + channel_data(subject.input.channel);
    let after = headers(&due) + channel_data(subject.output.channel);
    after.saturating_sub(before)
}

/// Puts right checksums in, as far as there is a place for them: a fuzzer would hardly find them.
pub fn repaired(mut frame: Vec<u8>, repairs: u8) -> Vec<u8> {
    let Ok(packet) = dissect(&frame) else { return frame };
    let network = 14 + 4 * packet.tags.len();
    let udp = headers(&frame) - 8;
    if let (Network::V4 { options, .. }, true) = (&packet.network, repairs & REPAIR_HEADER != 0) {
        let header = &mut frame[network..network + 20 + options.len()];
        header[10..12].fill(0);
        let sum = internet_checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    if repairs & REPAIR_UDP != 0 {
        let datagram = &mut frame[udp..udp + 8 + packet.payload.len()];
        datagram[6..8].fill(0);
        let sum = udp_checksum(packet.source.ip(), packet.destination.ip(), datagram);
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}
