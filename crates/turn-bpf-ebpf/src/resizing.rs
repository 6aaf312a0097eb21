//! Other headers for a packet at TC: room for them, or no change at all.

use aya_ebpf::bindings::{__sk_buff, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC};
use aya_ebpf::helpers::{bpf_skb_adjust_room, bpf_skb_change_proto, bpf_skb_change_tail, bpf_skb_pull_data};
use turn_wire::ethernet;

/// Where the longest headers end: Ethernet, IPv6, UDP, ChannelData.
pub const HEADERS: u32 = 14 + 40 + 8 + 4;
/// The packet is an IPv4 packet.
pub const IS_V4: u32 = 1;
/// It is to be one.
pub const BECOMES_V4: u32 = 2;

/// By how much an IPv6 header is longer than an IPv4 header.
const FAMILY_DIFFERENCE: i32 = 20;

/// Takes `head_by` bytes from the headers, or gives them as many more where negative, and cuts `tail_by` bytes from the end.
/// False, and the packet is as it was, where that cannot be.
#[inline(always)]
pub fn resize(skb: *mut __sk_buff, head_by: i32, tail_by: u32, families: u32) -> bool {
    let (from_v4, to_v4) = (families & IS_V4 != 0, families & BECOMES_V4 != 0);
    let family = match (from_v4, to_v4) {
        (true, false) => FAMILY_DIFFERENCE,
        (false, true) => -FAMILY_DIFFERENCE,
        _ => 0,
    };
    let rest = head_by.wrapping_add(family).wrapping_neg();
    // From here on memory is needed for headroom only: what is written to is in one piece and nobody else's. Where the end
    // is to be cut, all of the packet is: by a cut of nothing, which has the kernel check all that it checks for the true one.
    // SAFETY: the verifier checks that `skb` is the context, here and below. No pointer into the packet is held.
    let owned = unsafe {
        match tail_by {
            0 => bpf_skb_pull_data(skb, (*skb).len.min(HEADERS)),
            _ => bpf_skb_change_tail(skb, (*skb).len, 0),
        }
    };
    if owned != 0 || !change_head(skb, from_v4, to_v4, rest) {
        return false;
    }
    // SAFETY: as above.
    tail_by == 0 || unsafe { bpf_skb_change_tail(skb, (*skb).len.wrapping_sub(tail_by), 0) } == 0
}

/// Inserts bytes before the IP header or takes some from its start: the difference of the families, and `rest` besides.
#[inline(always)]
fn change_head(skb: *mut __sk_buff, from_v4: bool, to_v4: bool, rest: i32) -> bool {
    if from_v4 == to_v4 {
        return insert(skb, rest);
    }
    // What was inserted is taken back without a loss. Where both take away, neither needs memory, and the bounds that the
    // kernel checks are those of the first.
    if from_v4 && rest < 0 {
        if !become_family(skb, to_v4) {
            return false;
        }
        if !insert(skb, rest) {
            become_family(skb, from_v4);
            return false;
        }
    } else {
        if !insert(skb, rest) {
            return false;
        }
        if !become_family(skb, to_v4) {
            insert(skb, rest.wrapping_neg());
            return false;
        }
    }
    true
}

/// Inserts zeros before the IP header, or takes bytes from its start where negative. False, and nothing is changed, where
/// that cannot be.
#[inline(always)]
fn insert(skb: *mut __sk_buff, bytes: i32) -> bool {
    // SAFETY: as above.
    bytes == 0 || unsafe { bpf_skb_adjust_room(skb, bytes, BPF_ADJ_ROOM_MAC, 0) == 0 }
}

/// Makes an IPv6 packet of an IPv4 packet, or the reverse: inserts the difference of the two headers or takes it away, in
/// the same way, and tells the kernel, which goes by its own note of the family and not by the EtherType.
#[inline(always)]
fn become_family(skb: *mut __sk_buff, is_v4: bool) -> bool {
    let ethertype = if is_v4 { ethernet::IPV4 } else { ethernet::IPV6 };
    // SAFETY: as above.
    unsafe { bpf_skb_change_proto(skb, ethertype.raw(), 0) == 0 }
}
