//! Trains: many datagrams that the server sends in one call (UDP segmentation offload), which reach the program in one buffer.

use turn_datapath::control::kind;
use turn_datapath::{FlowKey, Reason};
use turn_wire::{Be16, IpAddress};

use super::control::{INTRODUCTIONS, OTHER_RESPONSES, request_key, response_key, stun};
use super::draft::Draft;
use super::subject::{CHANNEL, DATA, OTHER_CHANNEL, Subject, data, key, note};
use super::witness::{armed, unarmed};
use super::{Case, Message, NOW};
use crate::oracle::Leg;
use crate::packet::{Packet, channel_data};

/// At every place, also the last one, whose datagram may be shorter than the others.
pub fn a_witness_may_be_anywhere_in_a_train() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        for length in [0, 1, 3, 31, 32, 33, 120] {
            let noted = data(length);
            let subject = subject.awaiting(&noted);
            let [noted, other] = [noted, other(length)].map(|data| payload(&subject, &data));
            if noted.is_empty() {
                continue;
            }
            for (datagrams, place) in [(2, 0), (2, 1), (5, 2), (40, 0), (40, 39)] {
                let mut train = vec![other.clone(); datagrams];
                train[place] = noted.clone();
                let name = format!("{length} bytes, {place} of {datagrams}");
                cases.push(witnessed(sent(name, &subject, &train, noted.len()), datagrams));
            }
            for segment in [noted.len() + 1, noted.len() + 100] {
                let name = format!("{length} bytes, the last is shorter than {segment}");
                let mut longer = other.clone();
                longer.resize(segment, 0);
                let train = [longer.clone(), longer, noted.clone()];
                cases.push(witnessed(sent(name, &subject, &train, segment), 3));
            }
        }
    }
    cases
}

/// Of a call that is older than turn-bpf the port of the relayed transport address is not known, in no datagram of the train.
pub fn a_wildcard_is_found_by_every_datagram_of_a_train() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed().into_iter().filter(|subject| subject.output.channel.is_none()) {
        let subject = subject.awaiting(DATA);
        let wildcard = FlowKey { source: IpAddress::ANY, source_port: Be16::new(0), ..subject.output_key() };
        let train = [other(DATA.len()), other(DATA.len()), DATA.to_vec()];
        let draft = sent("the last one", &subject, &train, DATA.len());
        cases.push(witnessed(draft.setting(|setting| setting.expected = vec![(wildcard, subject.key())]), 3));
    }
    cases
}

/// Trains of other data, of the right data at the wrong places, and trains that this host forwards.
pub fn other_trains_are_no_witnesses() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        let subject = subject.awaiting(DATA);
        let [noted, other] = [DATA, &other(DATA.len())[..]].map(|data| payload(&subject, data));
        let length = noted.len();
        let others = |datagrams: usize| {
            [Reason::EgressTrain].into_iter().chain(std::iter::repeat_n(Reason::OtherPayload, datagrams))
        };
        let case = sent("other data", &subject, &vec![other.clone(); 9], length).passes(Reason::OtherPayload);
        cases.push(case.counts(others(9)));

        let forwarded = sent("forwarded", &subject, &vec![noted.clone(); 3], length);
        cases.push(forwarded.how(|sent| sent.by_this_host = false).passes(Reason::EgressOther));
        let truncated = [noted.clone(), noted[..length - 1].to_vec()];
        let nothing = subject.but(|flow| flow.noted_until = 0);
        let case = sent("nothing noted", &nothing, &truncated, length).passes(Reason::OtherPayload);
        cases.push(case.counts(match subject.output.channel {
            // The last one is shorter than its ChannelData message says.
            Some(_) => vec![Reason::EgressTrain, Reason::OtherPayload, Reason::EgressOther],
            None => others(2).collect(),
        }));
        if subject.output.channel.is_none() {
            let shifted = [vec![1], noted.clone(), noted.clone(), vec![2; length - 1]];
            let case = sent("at the wrong places", &subject, &shifted, length).passes(Reason::OtherPayload);
            cases.push(case.counts(others(3)));
        }
        let packet = subject.servers(&[]).payload(&noted.repeat(3)).protocol(6);
        let tcp = Draft::sent("TCP", &subject, packet.build()).how(|sent| sent.segment = length as u16);
        cases.push(tcp.passes(Reason::EgressOther));
    }
    cases
}

/// Two channels of one client, in any order: each is the witness of its own flow.
pub fn channels_are_told_apart_in_a_train() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed().into_iter().filter(|subject| subject.output.channel.is_some()) {
        let other_channel = if subject.output.channel == Some(CHANNEL) { OTHER_CHANNEL } else { CHANNEL };
        let [first, second] = [data(64), other(64)];
        let subject = subject.awaiting(&first);
        // The other flow comes from another port of the same sender, to the same receiver.
        let mut source = subject.input.source;
        source.set_port(source.port() + 1);
        let other_input = Leg { source, ..subject.input };
        let other_output = Leg { channel: Some(other_channel), ..subject.output };
        let mut other_flow = subject.flow;
        note(&mut other_flow, &second);

        let [a, b] = [
            channel_data(subject.output.channel.expect("a client's flow"), &first, &[]),
            channel_data(other_channel, &second, &[]),
        ];
        let unknown = channel_data(0x4777, &first, &[]);
        let plain = vec![0xa5; a.len()];
        for (name, train) in [
            ("a, b", [&a, &b, &unknown, &plain]),
            ("b, a", [&b, &a, &unknown, &plain]),
            ("apart", [&unknown, &b, &plain, &a]),
            ("at the end", [&plain, &unknown, &a, &b]),
        ] {
            let train = train.map(Clone::clone);
            let draft = sent(name, &subject, &train, a.len()).setting(|setting| {
                setting.flows.push((key(&other_input), other_flow));
                setting.expected.push((key(&other_output), key(&other_input)));
            });
            let mut case = armed(draft.passes(Reason::Witness)).reports(kind::ARMED);
            let (first_key, mut both) = (subject.key(), case.outcome.flows[0].1);
            assert_ne!(first_key, key(&other_input));
            both.noted_fingerprint = other_flow.noted_fingerprint;
            case.outcome.flows[1].1 = both;
            let mut report = case.outcome.reports[0].clone();
            report.key = key(&other_input);
            case.outcome.reports.push(report);
            let is_first = |message: &&Vec<u8>| **message == a || **message == b;
            if train.iter().find(is_first) == Some(&b) {
                case.outcome.reports.reverse();
            }
            let others = [Reason::EgressOther; 2];
            let witnesses = [Reason::Witness; 2];
            cases.push(case.counts([Reason::EgressTrain].into_iter().chain(others).chain(witnesses)));
        }
    }
    cases
}

/// A Refresh success that ends an allocation must not be hidden among data, nor behind other responses.
pub fn rf5_a36_responses_in_a_train_are_copied() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in Subject::from_clients() {
        let client = request_key(&subject);
        let stranger = |train: &[Vec<u8>]| {
            let packet = Packet::new(subject.input.destination, subject.input.source);
            let draft = Draft::sent("responses", &subject, packet.payload(&train.concat()).build());
            draft.how(|sent| sent.segment = train[0].len() as u16)
        };
        let known = |train: &[Vec<u8>]| stranger(train).setting(|setting| setting.clients = [client].into());
        let counted = |datagrams: usize, copied: usize| {
            [Reason::EgressTrain]
                .into_iter()
                .chain(std::iter::repeat_n(Reason::EgressOther, datagrams))
                .chain(std::iter::repeat_n(Reason::EgressControl, copied))
        };
        let copies = |mut case: Case, messages: &[&[u8]]| {
            let copy = |bytes: &&[u8]| {
                let (kind, key) = (kind::RESPONSE, response_key(&subject));
                Message { kind, time: NOW, key, bytes: bytes.to_vec() }
            };
            case.outcome.messages = messages.iter().map(copy).collect();
            case
        };

        for stun_type in OTHER_RESPONSES {
            for length in [0, 24, 101, 1260] {
                let message = stun(stun_type, length);
                let data = vec![0x80; message.len()];
                let [first, middle, last] =
                    [[&message, &data, &data], [&data, &message, &data], [&data, &data, &message]];
                for train in [first, middle, last] {
                    let train = train.map(Clone::clone);
                    let case = known(&train).passes(Reason::EgressOther).counts(counted(3, 1));
                    cases.push(copies(case, &[&message]));
                    cases.push(stranger(&train).passes(Reason::EgressOther).counts(counted(3, 0)));
                }
                // The last one may be shorter.
                let train = [vec![0x80; message.len() + 30], message.clone()];
                let case = known(&train).passes(Reason::EgressOther).counts(counted(2, 1));
                cases.push(copies(case, &[&message]));
            }
        }
        let [several @ .., long] =
            [0x0104, 0x0119, 0x0104, 0x0118, 0x0104].map(|stun_type| stun(stun_type, 80));
        let case = known(&several).passes(Reason::EgressOther).counts(counted(4, 4));
        cases.push(copies(case, &several.each_ref().map(|message| &message[..])));
        let many = vec![long.clone(); 30];
        let case = known(&many).passes(Reason::EgressOther).counts(counted(30, 30));
        cases.push(copies(case, &vec![&long[..]; 30]));

        // What makes a client known does so for the rest of its train.
        for stun_type in INTRODUCTIONS {
            let train = [stun(0x0104, 60), stun(stun_type, 60), stun(0x0104, 60)];
            let mut case = stranger(&train).passes(Reason::EgressOther).counts(counted(3, 2));
            case.outcome.clients = [client].into();
            cases.push(copies(case, &[&train[1], &train[2]]));
        }
    }
    cases
}

/// A device is told a length that the datagram does not exceed.
pub fn trains_of_one_are_datagrams() -> Vec<Case> {
    let mut cases = Vec::new();
    for subject in unarmed() {
        for length in [0, 1, 120] {
            let data = data(length);
            let subject = subject.awaiting(&data);
            let datagram = payload(&subject, &data);
            for segment in [datagram.len().max(1), datagram.len() + 1, 65_535] {
                let name = format!("{} bytes, cut at {segment}", datagram.len());
                let draft = sent(name, &subject, std::slice::from_ref(&datagram), segment);
                cases.push(armed(draft.passes(Reason::Witness)).reports(kind::ARMED));
            }
        }
    }
    cases
}

/// The rest of a longer one is passed over.
pub fn trains_are_looked_at_up_to_the_longest_that_a_server_can_send() -> Vec<Case> {
    const LONGEST: usize = 128;
    let mut cases = Vec::new();
    for subject in unarmed() {
        let data = data(16);
        let subject = subject.awaiting(&data);
        let [noted, other] = [data, other(16)].map(|data| payload(&subject, &data));
        for (datagrams, place) in [(LONGEST, LONGEST - 1), (LONGEST + 9, LONGEST - 1)] {
            let mut train = vec![other.clone(); datagrams];
            train[place] = noted.clone();
            let draft = sent(format!("{place} of {datagrams}"), &subject, &train, noted.len());
            cases.push(witnessed(draft, LONGEST));
        }
        let mut train = vec![other.clone(); LONGEST];
        train.push(noted.clone());
        let case = sent("behind the longest", &subject, &train, noted.len()).passes(Reason::OtherPayload);
        let others = std::iter::repeat_n(Reason::OtherPayload, LONGEST);
        cases.push(case.counts([Reason::EgressTrain].into_iter().chain(others)));
    }
    cases
}

/// These datagrams by the subject's output, to be cut at this length.
fn sent(name: impl AsRef<str>, subject: &Subject, train: &[Vec<u8>], segment: usize) -> Draft {
    let packet = subject.servers(&[]).payload(&train.concat());
    Draft::sent(name, subject, packet.build()).how(|sent| sent.segment = segment as u16)
}

/// One of so many datagrams is a witness, the others bear other data.
fn witnessed(draft: Draft, datagrams: usize) -> Case {
    let case = armed(draft.passes(Reason::Witness)).reports(kind::ARMED);
    let others = std::iter::repeat_n(Reason::OtherPayload, datagrams - 1);
    case.counts([Reason::EgressTrain, Reason::Witness].into_iter().chain(others))
}

/// This application data as the subject's output bears them.
fn payload(subject: &Subject, data: &[u8]) -> Vec<u8> {
    match subject.output.channel {
        Some(channel) => channel_data(channel, data, &[]),
        None => data.to_vec(),
    }
}

/// Data of which no byte is as in [`data`].
fn other(length: usize) -> Vec<u8> {
    data(length).iter().map(|byte| !byte).collect()
}
