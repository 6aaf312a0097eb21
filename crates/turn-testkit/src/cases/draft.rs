//! Writing a case: first what comes in, then what is to become of it.

use std::net::SocketAddr;

use turn_datapath::egress::Sent;
use turn_datapath::{Flow, Reason};
use turn_wire::ethernet::VlanTags;

use super::subject::Subject;
use crate::dissect::dissect;

use super::{Case, HERE, Input, Outcome, Report, SENT, Setting, Verdict};

/// A case that does not say yet what is to happen.
#[derive(Clone, Debug)]
pub struct Draft {
    name: String,
    subject: Subject,
    setting: Setting,
    input: Input,
}

impl Draft {
    /// A frame comes in while the subject's flow is in the maps.
    pub fn received(name: impl AsRef<str>, subject: &Subject, frame: Vec<u8>) -> Self {
        Self::new(name, subject, Input::Received { frame, interface: HERE })
    }

    /// Generic XDP has let a frame pass, with this tag beside it, while the subject's flow is in the maps.
    pub fn passed(name: impl AsRef<str>, subject: &Subject, frame: Vec<u8>, tag: VlanTags) -> Self {
        Self::new(name, subject, Input::Passed { frame, tag })
    }

    /// This host sends a frame while the subject's output is expected.
    pub fn sent(name: impl AsRef<str>, subject: &Subject, frame: Vec<u8>) -> Self {
        Self::new(name, subject, Input::Sent { frame, sent: SENT })
    }

    fn new(name: impl AsRef<str>, subject: &Subject, input: Input) -> Self {
        let mut setting = Setting::empty();
        setting.flows.push((subject.key(), subject.flow));
        setting.expected.push((subject.output_key(), subject.key()));
        let name = format!("{}: {}", subject.name(), name.as_ref());
        Self { name, subject: subject.clone(), setting, input }
    }

    /// Changes what the maps hold.
    pub fn setting(mut self, change: impl FnOnce(&mut Setting)) -> Self {
        change(&mut self.setting);
        self
    }

    /// The packet.
    pub fn into_input(self) -> Input {
        self.input
    }

    /// What the maps hold.
    pub fn into_setting(self) -> Setting {
        self.setting
    }

    /// Changes what is known of the packet sent.
    pub fn how(mut self, change: impl FnOnce(&mut Sent)) -> Self {
        if let Input::Sent { sent, .. } = &mut self.input {
            change(sent);
        }
        self
    }

    /// It is rewritten as the oracle says and leaves by the interface that it came in by.
    pub fn relayed(self) -> Case {
        let due = self.subject.due(self.input.frame()).expect("the oracle relays it");
        self.becomes(due)
    }

    /// It is rewritten as the oracle says and leaves by another interface.
    pub fn redirected(self) -> Case {
        let mut case = self.relayed();
        case.outcome.verdict = Verdict::Redirect;
        case.outcome.counted = vec![Reason::Redirected];
        case
    }

    /// It becomes this frame and leaves by the interface that it came in by.
    pub fn becomes(self, frame: Vec<u8>) -> Case {
        let network = if self.subject.output.source.is_ipv4() { 14 + 20 + 8 } else { 14 + 40 + 8 };
        let headers = network
            + self.subject.flow.out_tags.length()
            + if self.subject.output.channel.is_some() { 4 } else { 0 };
        let bytes = (frame.len() - headers) as u64;
        let case = self.outcome(Verdict::Transmit, Reason::Relayed, frame);
        case.leaves(|flow| {
            flow.kernel_packets += 1;
            flow.kernel_bytes += bytes;
        })
    }

    /// It goes on, untouched, for this reason.
    pub fn passes(self, reason: Reason) -> Case {
        let frame = self.input.frame().to_vec();
        let header = if self.subject.input.channel.is_some() { 4 } else { 0 };
        let case = self.outcome(Verdict::Onward, reason, frame.clone());
        if !reason.is_spilled() {
            return case;
        }
        let payload = dissect(&frame).expect("packets of a known flow are whole").payload;
        let bytes = (payload.len() as u64).saturating_sub(header);
        case.leaves(|flow| {
            flow.spilled_packets += 1;
            flow.spilled_bytes += bytes;
        })
    }

    fn outcome(self, verdict: Verdict, reason: Reason, frame: Vec<u8>) -> Case {
        let outcome = Outcome {
            verdict,
            frame,
            counted: vec![reason],
            messages: Vec::new(),
            reports: Vec::new(),
            flows: self.setting.flows.clone(),
            clients: self.setting.clients.clone(),
        };
        Case { name: self.name, setting: self.setting, input: self.input, outcome }
    }
}

impl Case {
    /// The subject's flow is changed in this way too.
    pub fn leaves(mut self, change: impl FnOnce(&mut Flow)) -> Self {
        change(&mut self.outcome.flows[0].1);
        self
    }

    /// It is counted so and not otherwise.
    pub fn counts(mut self, counted: impl IntoIterator<Item = Reason>) -> Self {
        self.outcome.counted = counted.into_iter().collect();
        self.outcome.counted.sort();
        self
    }

    /// The daemon hears of the subject's flow, and of the source that its packets then have.
    pub fn reports(mut self, kind: u32) -> Self {
        let (key, flow) = self.outcome.flows[0];
        let out_source = SocketAddr::new(flow.out_source.into(), flow.out_source_port.value());
        self.outcome.reports.push(Report { kind, time: self.setting.now, key, out_source });
        self
    }
}
