//! Running a case in ordinary memory.

use std::net::SocketAddr;

use turn_datapath::{Action, ControlMessage, FlowEvent, Reason, egress, ingress};

use super::{Input, Message, Outcome, Report, Setting, TERMS, Verdict};
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
    setting.devices.iter().for_each(|ifindex| flows.insert_device(*ifindex));
    flows
}

/// Runs a packet through `turn-datapath` on the host.
pub fn run(setting: &Setting, input: &Input) -> Outcome {
    let flows = maps(setting);
    let mut frame = MemoryFrame::new(input.frame());
    let (verdict, counted, message) = match input {
        Input::Received { interface, .. } => match ingress(&mut frame, &flows, &TERMS, *interface) {
            Action::Pass(reason) => (Verdict::Onward, vec![reason], None),
            Action::Copy(message) => (Verdict::Onward, vec![Reason::Control], Some(message)),
            Action::Transmit => (Verdict::Transmit, vec![Reason::Relayed], None),
            Action::Redirect => (Verdict::Redirect, vec![Reason::Redirected], None),
        },
        Input::Sent { sent, .. } => {
            let seen = egress(&frame, &flows, &TERMS, sent);
            let control = seen.message.map(|_| Reason::EgressControl);
            (Verdict::Onward, [seen.reason].into_iter().chain(control).collect(), seen.message)
        }
    };
    let message = message.map(|ControlMessage { at, length, key, kind }| Message {
        kind,
        time: setting.now,
        key,
        bytes: frame.bytes()[at..at + length].to_vec(),
    });
    let mut counted = counted;
    counted.sort();
    Outcome {
        verdict,
        frame: frame.bytes().to_vec(),
        counted,
        message,
        reports: flows.take_reports().iter().map(Report::from).collect(),
        flows: setting.flows.iter().filter_map(|(key, _)| Some((*key, flows.peek(key)?))).collect(),
        clients: flows.clients(),
    }
}

impl From<&FlowEvent> for Report {
    fn from(FlowEvent { header, out_source, out_source_port, reserved }: &FlowEvent) -> Self {
        assert_eq!((header.length, reserved), (0, &[0; 3]));
        let out_source = SocketAddr::new((*out_source).into(), out_source_port.value());
        Self { kind: header.kind, time: header.time, key: header.key, out_source }
    }
}
