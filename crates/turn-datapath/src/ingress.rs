//! A packet that came in: relayed here, or passed to the server as it is.

use turn_wire::Be16;
use turn_wire::channel_data::{self, ChannelDataHeader};

use crate::control::{self, ControlMessage, FlowEvent, RecordHeader};
use crate::fingerprint::fingerprint;
use crate::flow::path_flags;
use crate::packet::Packet;
use crate::translate::Translation;
use crate::{Flow, FlowKey, Flows, Frame, LeaseTerms, Reason, rate};

/// How long a packet that went to the server stands for its flow before another one may be noted instead.
/// Longer than a loaded server takes, shorter than anyone waits for a flow to be armed.
const NOTED_FOR: u64 = 100_000_000;

/// How many packets in a row go to the server behind a heartbeat that has not come out of it yet.
///
/// One that is relayed here would overtake them. But packets that come faster than the server is would never see
/// it catch up, and many at once overflow the socket of a server that is held up, so there is an end to waiting.
const MOST_BEHIND: u16 = 32;

/// The same for a flow without a lease. Its packets go to the server in any case, and the last of them to be noted
/// decides when the flow is armed.
const MOST_BEFORE: u16 = 256;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on to the server, untouched.
    Pass(Reason),
    /// It goes on to the server, untouched, and the daemon gets a copy.
    Copy(ControlMessage),
    /// It was rewritten and leaves by the interface that it came in by.
    Transmit,
    /// It was rewritten and leaves by the interface that was prepared.
    Redirect,
}

/// Decides on a packet that came in by this interface, and rewrites it where it is relayed. The key becomes that of its
/// addresses, without a channel where the daemon gets a copy.
#[inline(always)]
pub fn ingress<F: Frame, T: Flows>(
    frame: &mut F,
    flows: &T,
    terms: &LeaseTerms,
    ifindex: u32,
    key: &mut FlowKey,
) -> Action {
    let packet = match Packet::read(frame) {
        Ok(packet) => packet,
        Err(reason) => return Action::Pass(reason),
    };
    *key = packet.key();
    if let Some(message) = request(frame, flows, &packet, key) {
        return message;
    }

    // A first word in the channel range is a channel number only if that channel is bound. Anything at a
    // relayed transport address is a peer's data, whatever it looks like.
    let mut flow = None;
    if channel_data::is_channel_number(packet.data.head.number) {
        key.channel = packet.data.head.number;
        flow = flows.flow(key);
    }
    if flow.is_none() {
        key.channel = Be16::new(0);
        flow = flows.flow(key);
    }
    let Some(mut flow) = flow else {
        return stranger(frame, flows, &packet).unwrap_or(Action::Pass(Reason::NoFlow));
    };
    match relay(frame, flows, terms, ifindex, &packet, key, &mut flow) {
        Ok(action) => action,
        Err(reason) => {
            let header = if key.channel == Be16::new(0) { 0 } else { ChannelDataHeader::LEN as u16 };
            let bytes = packet.data.length.saturating_sub(header);
            flow.spilled_packets = flow.spilled_packets.wrapping_add(1);
            flow.spilled_bytes = flow.spilled_bytes.wrapping_add(u64::from(bytes));
            Action::Pass(reason)
        }
    }
}

const REFRESH: u16 = 0x0004;
const CREATE_PERMISSION: u16 = 0x0008;
const CHANNEL_BIND: u16 = 0x0009;

/// The requests of known clients whose meaning the daemon works out.
#[inline(always)]
fn request<F: Frame, T: Flows>(frame: &F, flows: &T, packet: &Packet, key: &FlowKey) -> Option<Action> {
    if !matches!(packet.data.stun_type(frame)?, REFRESH | CREATE_PERMISSION | CHANNEL_BIND)
        || !flows.is_client(key)
    {
        return None;
    }
    Some(copy_request(packet))
}

/// A ChannelBind request of somebody whose Allocate was not seen, which may be because it is older than turn-bpf.
#[inline(always)]
fn stranger<F: Frame, T: Flows>(frame: &F, flows: &T, packet: &Packet) -> Option<Action> {
    (packet.data.stun_type(frame)? == CHANNEL_BIND && flows.admit_stranger()).then(|| copy_request(packet))
}

#[inline(always)]
fn copy_request(packet: &Packet) -> Action {
    let length = usize::from(packet.data.length);
    if length > control::MAX_MESSAGE {
        return Action::Pass(Reason::ControlTooLong);
    }
    Action::Copy(ControlMessage { at: packet.data.at, length, kind: control::kind::REQUEST })
}

/// A packet of a known flow: relayed, or the reason why it goes to the server.
#[inline(always)]
fn relay<F: Frame, T: Flows>(
    frame: &mut F,
    flows: &T,
    terms: &LeaseTerms,
    ifindex: u32,
    packet: &Packet,
    key: &FlowKey,
    flow: &mut Flow,
) -> Result<Action, Reason> {
    let data = ApplicationData::of(packet, key)?;
    if packet.has_partial_checksum() {
        return Err(Reason::PartialChecksum);
    }

    // Before a call of the kernel, so that the compiler reads nothing of the path before.
    let lease_until = flow.lease_until;
    let now = flows.now();
    let is_over_rate = terms.rate_cost != 0 && rate::spend(flow, data.length, now, terms.rate_cost);
    let spilled = match wait(terms, flow, lease_until, now, is_over_rate) {
        Some(reason) => reason,
        None => match forward(frame, flows, terms, ifindex, packet, key, &data, flow, now) {
            Err(Reason::LongerThanSeen) => Reason::LongerThanSeen,
            done => return done,
        },
    };
    note(frame, ifindex, packet, &data, flow, now);
    let news = match spilled {
        Reason::NoLease if flow.lease_until != 0 => control::kind::LAPSED,
        Reason::LongerThanSeen if now >= flow.longer_at => control::kind::LONGER,
        _ => return Err(spilled),
    };
    flows.report(&event(news, now, key, flow));
    if news == control::kind::LAPSED {
        flow.lease_until = 0;
    } else {
        flow.longer_at = now.wrapping_add(terms.heartbeat);
    }
    Err(spilled)
}

/// Why a packet has to go to the server and its translation to be awaited; none where the lease lets it be relayed.
#[inline(always)]
fn wait(
    terms: &LeaseTerms,
    flow: &mut Flow,
    lease_until: u64,
    now: u64,
    is_over_rate: bool,
) -> Option<Reason> {
    if now >= lease_until {
        return Some(Reason::NoLease);
    }
    if is_over_rate {
        return Some(Reason::OverRate);
    }
    if now >= flow.heartbeat_at {
        flow.heartbeat_at = now.wrapping_add(terms.heartbeat);
        flow.noted_until = 0;
        return Some(Reason::Heartbeat);
    }
    (flow.noted_until > now && flow.noted_in_a_row < MOST_BEHIND).then_some(Reason::Behind)
}

/// Relays a packet for which there is a lease.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one call, inlined: a struct would only rename the arguments")]
fn forward<F: Frame, T: Flows>(
    frame: &mut F,
    flows: &T,
    terms: &LeaseTerms,
    ifindex: u32,
    packet: &Packet,
    key: &FlowKey,
    data: &ApplicationData,
    flow: &mut Flow,
    now: u64,
) -> Result<Action, Reason> {
    if flow.in_ifindex != ifindex
        || flow.in_mac != packet.ethernet.destination
        || flow.in_tags != packet.tags.without_priority()
    {
        return Err(Reason::OtherPath);
    }

    let translation = Translation::new(frame, packet, data, flow, |flow| {
        if let Some(known) = flows.path_mtu(key) {
            flow.told_by_routing(&known, now, terms);
        }
    })?;
    let redirected = flow.out_ifindex != ifindex || flow.path_flags & path_flags::ONLY_REDIRECT != 0;
    if redirected && !can_redirect(frame, flows, packet, flow) {
        return Err(Reason::CannotRedirect);
    }
    translation.apply(frame, flow)?;

    flow.kernel_packets = flow.kernel_packets.wrapping_add(1);
    flow.kernel_bytes = flow.kernel_bytes.wrapping_add(u64::from(data.length));
    Ok(if redirected { Action::Redirect } else { Action::Transmit })
}

/// Makes ready to redirect the frame to the way out.
#[inline(always)]
fn can_redirect<F: Frame, T: Flows>(frame: &F, flows: &T, packet: &Packet, flow: &Flow) -> bool {
    let takes = flow.path_flags & path_flags::REDIRECT != 0;
    let takes_parts = flow.path_flags & path_flags::REDIRECT_PARTS != 0;
    takes && (takes_parts || frame.is_whole(packet.data.end())) && flows.prepare_redirect(flow.out_ifindex)
}

/// Remembers the packet as the last one that went to the server. When that comes out, so have all before it.
#[inline(always)]
fn note<F: Frame>(
    frame: &F,
    ifindex: u32,
    packet: &Packet,
    data: &ApplicationData,
    flow: &mut Flow,
    now: u64,
) {
    let in_a_row = if flow.noted_until > now { flow.noted_in_a_row.wrapping_add(1) } else { 0 };
    if in_a_row > MOST_BEFORE {
        return;
    }
    if let Some(fingerprint) = fingerprint(frame, data.at, data.length) {
        flow.noted_in_a_row = in_a_row;
        flow.noted_fingerprint = fingerprint;
        flow.noted_ifindex = ifindex;
        flow.noted_mac = packet.ethernet.destination;
        flow.noted_tags = packet.tags.without_priority();
        flow.noted_until = now.wrapping_add(NOTED_FOR);
    }
}

/// Where the application data of a packet lies.
#[derive(Clone, Copy, Debug)]
pub struct ApplicationData {
    /// Offset of its first byte.
    pub at: usize,
    /// Its length in bytes.
    pub length: u16,
    /// Bytes of ChannelData padding behind it, 0 to 3.
    pub padding: u16,
}

impl ApplicationData {
    /// Takes the packet as ChannelData where its key has a channel, else as a plain datagram.
    #[inline(always)]
    pub(crate) fn of(packet: &Packet, key: &FlowKey) -> Result<Self, Reason> {
        if key.channel == Be16::new(0) {
            return Ok(Self { at: packet.data.at, length: packet.data.length, padding: 0 });
        }
        let length = packet.data.head.length.value();
        let behind_header = packet.data.length.wrapping_sub(ChannelDataHeader::LEN as u16);
        let padding = behind_header.checked_sub(length).ok_or(Reason::ChannelDataLength)?;
        if padding != 0 && padding != channel_data::padding(length) {
            return Err(Reason::ChannelDataLength);
        }
        Ok(Self { at: packet.data.at.wrapping_add(ChannelDataHeader::LEN), length, padding })
    }
}

/// A report on a flow.
#[inline(always)]
pub(crate) fn event(kind: u32, time: u64, key: &FlowKey, flow: &Flow) -> FlowEvent {
    FlowEvent {
        header: RecordHeader { kind, length: 0, time, key: *key },
        out_source: flow.out_source,
        out_source_port: flow.out_source_port,
        reserved: [0; 3],
    }
}
