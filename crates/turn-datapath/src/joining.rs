//! Calls that are older than turn-bpf: what comes in, and what the server makes of it.
//!
//! Nobody knows their flows. But a datagram that this host sends, with the same application data as one that came in a moment
//! ago, is most likely the server's translation of it. What comes in is noted, what leaves is compared and reported; what
//! that proves is for the daemon to judge. Nothing of it happens unless [`LeaseTerms::joins_until`] says so.

use turn_wire::Be16;
use turn_wire::channel_data::{self, ChannelDataHeader};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::control::{RecordHeader, kind};
use crate::egress::{Outgoing, Sent};
use crate::fingerprint::fingerprint;
use crate::ingress::ApplicationData;
use crate::packet::Packet;
use crate::{FlowKey, Flows, Frame, LeaseTerms};

/// Shorter application data tells too little.
const SHORTEST: u16 = 16;

/// How long a server may take from what comes in to what leaves, in nanoseconds.
const NOTED_FOR: u64 = 100_000_000;

/// A datagram that came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Noted {
    /// As of a flow: where it came from and went to, and its channel.
    pub key: FlowKey,
    /// When.
    pub at: u64,
    /// Not zero where others came within the same time, with the same data and another key.
    pub others: u64,
}

/// What is known of how the application data of a datagram came in that leaves.
pub mod origin {
    /// It was not seen coming in, or too long ago.
    pub const UNSEEN: u32 = 0;
    /// It came in one way only.
    pub const SEEN: u32 = 1;
    /// It came in several ways.
    pub const AMBIGUOUS: u32 = 2;
}

/// A datagram that this host sent and that no flow expects. The key of the header is its own, with a channel where it is ChannelData.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sighting {
    /// Kind, time and key.
    pub header: RecordHeader,
    /// The key of what came in with the same data, where that is one.
    pub input: FlowKey,
    /// Of the application data.
    pub fingerprint: u64,
    /// One of [`origin`].
    pub origin: u32,
    /// Zero.
    pub reserved: u32,
}

/// What is remembered of strangers' datagrams.
pub trait Joining {
    /// What came in with this fingerprint.
    fn noted(&self, fingerprint: u64) -> Option<Noted>;

    /// Remembers it.
    fn note(&self, fingerprint: u64, noted: &Noted);

    /// False where there have been more sightings than the daemon is to look at.
    fn admit_sighting(&self) -> bool;

    /// Tells the daemon.
    fn report_sighting(&self, sighting: &Sighting);
}

/// True while calls are looked for that are older than turn-bpf.
#[inline(always)]
pub fn is_joining<T: Flows>(flows: &T, terms: &LeaseTerms) -> bool {
    terms.joins_until != 0 && flows.now() < terms.joins_until
}

/// An echo comes in with the data that went out, so clients' and peers' data are kept apart.
#[inline(always)]
fn of_kind(fingerprint: u64, is_channel_data: bool) -> u64 {
    fingerprint & !1 | u64::from(is_channel_data)
}

/// Notes a datagram that came in and belongs to no known flow.
#[inline(always)]
pub fn note<F: Frame, T: Flows + Joining>(frame: &F, flows: &T) {
    let Ok(packet) = Packet::read(frame) else { return };
    let mut key = packet.key();
    let number = packet.data.head.number;
    let plain = (packet.data.at, packet.data.length);
    let (at, length) = match channel_data::is_channel_number(number) {
        true => match ApplicationData::of(&packet, &key.with_channel(number)) {
            Ok(ApplicationData { at, length, .. }) => {
                key.channel = number;
                (at, length)
            }
            Err(_) => plain,
        },
        false => plain,
    };
    if length < SHORTEST {
        return;
    }
    let Some(fingerprint) = fingerprint(frame, at, length) else { return };
    let fingerprint = of_kind(fingerprint, key.channel != Be16::new(0));
    let now = flows.now();
    let mut others = 0;
    if let Some(before) = flows.noted(fingerprint)
        && now.wrapping_sub(before.at) < NOTED_FOR
        && (before.key != key || before.others != 0)
    {
        others = 1;
    }
    flows.note(fingerprint, &Noted { key, at: now, others });
}

/// Reports a datagram that this host sends, unless a flow expects it. Trains and fragments are left out.
#[inline(always)]
pub fn sight<F: Frame, T: Flows + Joining>(frame: &F, flows: &T, sent: &Sent, outgoing: &mut Outgoing) {
    if sent.segment != 0 || outgoing.is_fragment() {
        return;
    }
    let Some(data) = outgoing.data(frame, 0, 0) else { return };
    if outgoing.expected(flows, &data).is_some() {
        return;
    }
    let mut key = *outgoing.key();
    let (mut at, mut length) = (data.at, data.length);
    let behind_header = data.length.saturating_sub(ChannelDataHeader::LEN as u16);
    // Some servers pad, as they need not.
    if channel_data::is_channel_number(data.head.number)
        && behind_header.checked_sub(data.head.length.value()).is_some_and(|padding| padding < 4)
    {
        key.channel = data.head.number;
        at = at.wrapping_add(ChannelDataHeader::LEN);
        length = data.head.length.value();
    }
    if length < SHORTEST || !flows.admit_sighting() {
        return;
    }
    let Some(fingerprint) = fingerprint(frame, at, length) else { return };
    let is_to_client = key.channel != Be16::new(0);
    let now = flows.now();
    let fresh = |noted: &Noted| now.wrapping_sub(noted.at) < NOTED_FOR;
    let mut noted = flows.noted(of_kind(fingerprint, !is_to_client)).filter(fresh);
    if is_to_client && noted.is_none() {
        // From one client to another, perhaps. An echo's own request is noted there, too, and is no answer to itself.
        noted = flows
            .noted(of_kind(fingerprint, true))
            .filter(fresh)
            .filter(|noted| noted.others != 0 || !is_answer(&noted.key, &key));
    }
    let (input, origin) = match noted {
        Some(Noted { key, others: 0, .. }) => (key, origin::SEEN),
        Some(_) => (FlowKey::default(), origin::AMBIGUOUS),
        None => (FlowKey::default(), origin::UNSEEN),
    };
    let header = RecordHeader { kind: kind::SIGHTED, length: 0, time: now, key };
    flows.report_sighting(&Sighting { header, input, fingerprint, origin, reserved: 0 });
}

/// True where one of the two goes back the way that the other came.
#[inline(always)]
fn is_answer(one: &FlowKey, other: &FlowKey) -> bool {
    one.source == other.destination
        && one.source_port == other.destination_port
        && one.destination == other.source
        && one.destination_port == other.source_port
}
