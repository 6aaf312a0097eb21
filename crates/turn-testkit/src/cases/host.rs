//! Running a case in ordinary memory.

use std::net::SocketAddr;

use turn_datapath::egress::{LONGEST_TRAIN, Seen, Sent};
use turn_datapath::{
    Action, ControlMessage, FlowEvent, FlowKey, LeaseTerms, Outgoing, Reason, ingress, path_mtu, unseen_tag,
};

use super::{FIRST_PART, Input, Message, Outcome, Report, Setting, TERMS, Verdict};
use crate::memory::{MemoryFlows, MemoryFrame};

/// Maps that hold what the setting says.
pub fn maps(setting: &Setting) -> MemoryFlows {
    use turn_datapath::Flows as _;
    let mut flows = MemoryFlows::new();
    flows.set_now(setting.now);
    flows.admit_strangers(setting.admits_strangers);
    setting.flows.iter().for_each(|(key, flow)| flows.insert_flow(*key, *flow));
    setting.expected.iter().for_each(|(output, flow)| flows.insert_expected(*output, *flow));
    setting.clients.iter().for_each(|client| flows.add_client(client));
    setting.interfaces.iter().for_each(|(ifindex, interface)| flows.insert_interface(*ifindex, *interface));
    setting.path_mtus.iter().for_each(|(key, mtu)| flows.insert_path_mtu(*key, *mtu));
    setting.devices.iter().for_each(|ifindex| flows.insert_device(*ifindex));
    flows
}

/// Runs a packet through `turn-datapath` on the host.
pub fn run(setting: &Setting, input: &Input) -> Outcome {
    run_by(&TERMS, setting, input)
}

/// The same by other terms.
pub fn run_by(terms: &LeaseTerms, setting: &Setting, input: &Input) -> Outcome {
    let flows = maps(setting);
    let first_part = if matches!(input, Input::Received { .. }) { FIRST_PART } else { usize::MAX };
    let mut frame = MemoryFrame::in_parts(input.frame(), first_part);
    let mut key = FlowKey::default();
    let (verdict, mut counted, messages) = match input {
        Input::Received { interface, .. } => match ingress(&mut frame, &flows, terms, *interface, &mut key) {
            Action::Pass(Reason::NotUdp) => {
                (Verdict::Onward, vec![path_mtu::hear(&frame, &flows, terms)], Vec::new())
            }
            Action::Pass(reason) => (Verdict::Onward, vec![reason], Vec::new()),
            Action::Copy(message) => (Verdict::Onward, vec![Reason::Control], vec![(key, message)]),
            Action::Transmit => (Verdict::Transmit, vec![Reason::Relayed], Vec::new()),
            Action::Redirect => (Verdict::Redirect, vec![Reason::Redirected], Vec::new()),
        },
        Input::Passed { tag, .. } => {
            let counted = unseen_tag::confirm(&frame, &flows, *tag, &mut key);
            (Verdict::Onward, counted.into_iter().collect(), Vec::new())
        }
        Input::Sent { sent, .. } => {
            let (counted, messages) = look(&frame, &flows, sent);
            (Verdict::Onward, counted, messages)
        }
    };
    let messages = messages.into_iter().map(|(key, ControlMessage { at, length, kind })| Message {
        kind,
        time: setting.now,
        key,
        bytes: frame.bytes()[at..at + length].to_vec(),
    });
    counted.sort();
    Outcome {
        verdict,
        frame: frame.bytes().to_vec(),
        counted,
        messages: messages.collect(),
        reports: flows.take_reports().iter().map(Report::from).collect(),
        flows: setting.flows.iter().filter_map(|(key, _)| Some((*key, flows.peek(key)?))).collect(),
        clients: flows.clients(),
    }
}

/// Looks at every datagram of a packet that is sent: what is to be counted, and what the daemon gets a copy of.
pub fn look(
    frame: &MemoryFrame,
    flows: &MemoryFlows,
    sent: &Sent,
) -> (Vec<Reason>, Vec<(FlowKey, ControlMessage)>) {
    let mut outgoing = match Outgoing::read(frame, sent) {
        Ok(outgoing) => outgoing,
        Err(reason) => return (vec![reason], Vec::new()),
    };
    let longest = if sent.segment == 0 { 1 } else { LONGEST_TRAIN };
    let mut seen: Vec<Seen> =
        (0..longest).map_while(|number| outgoing.look(frame, flows, &TERMS, sent, number)).collect();
    let train = (seen.len() > 1).then_some(Reason::EgressTrain);
    let messages: Vec<_> = seen
        .iter_mut()
        .filter_map(|seen| seen.message.take())
        .map(|message| (*outgoing.key(), message))
        .collect();
    let copied = messages.iter().map(|_| Reason::EgressControl);
    (seen.iter().map(|seen| seen.reason).chain(train).chain(copied).collect(), messages)
}

impl From<&FlowEvent> for Report {
    fn from(FlowEvent { header, out_source, out_source_port, reserved }: &FlowEvent) -> Self {
        assert_eq!((header.length, reserved), (0, &[0; 3]));
        let out_source = SocketAddr::new((*out_source).into(), out_source_port.value());
        Self { kind: header.kind, time: header.time, key: header.key, out_source }
    }
}
