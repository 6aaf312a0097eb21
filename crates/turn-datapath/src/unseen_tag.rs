//! VLAN tags that generic XDP does not see.
//!
//! A tag that the device took off a frame is kept beside it, out of XDP's sight, and leaves with it when it is relayed: besides the tags
//! that are written, or on the way to somebody who is not in that VLAN. Therefore each packet that generic XDP has noted is looked at
//! once more, where its tags show. Only if there are no others is its translation by the server a witness.

use turn_wire::Be16;
use turn_wire::channel_data;
use turn_wire::ethernet::VlanTags;

use crate::fingerprint::fingerprint;
use crate::ingress::ApplicationData;
use crate::packet::{Packet, UdpData};
use crate::{FlowKey, Flows, Frame, Reason};

/// Confirms the tags of a packet that was just noted, where there is none beside the frame that was not seen, by turning all bits of its
/// fingerprint. None where there is nothing to say of it.
#[inline(always)]
pub fn confirm<F: Frame, T: Flows>(
    frame: &F,
    flows: &T,
    beside: VlanTags,
    key: &mut FlowKey,
) -> Option<Reason> {
    let packet = Packet::read_headers::<F, false>(frame).ok()?;
    let data = UdpData::read(frame, packet.data.at, packet.data.length);
    let packet = Packet { data, ..packet };
    *key = packet.key();
    let mut flow = None;
    if channel_data::is_channel_number(data.head.number) {
        key.channel = data.head.number;
        flow = flows.flow(key);
    }
    if flow.is_none() {
        key.channel = Be16::new(0);
        flow = flows.flow(key);
    }
    let mut flow = flow?;
    let data = ApplicationData::of(&packet, key).ok()?;
    let fingerprint = fingerprint(frame, data.at, data.length)?;
    if flow.noted_until == 0 || flow.noted_fingerprint != fingerprint {
        return None;
    }
    let tags = beside.around(packet.tags).map(VlanTags::without_priority);
    if tags != Some(flow.noted_tags) {
        return Some(Reason::UnseenTag);
    }
    flow.noted_fingerprint = !fingerprint;
    None
}
