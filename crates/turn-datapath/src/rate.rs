//! How much of a flow may be relayed in the kernel per second (`--max-rate`).
//!
//! A server that limits bandwidth counts what it sees. A flow that carries more than the limit is therefore the server's
//! as a whole, until it carries less: the server then sees all of it, and cuts it down by its own rules.

use turn_wire::channel_data::ChannelDataHeader;

use crate::Flow;

/// What a flow may carry at once beyond its rate, in nanoseconds of that rate. Servers count in windows of a second
/// (coturn's `max-bps`), so that twice the rate can pass in the second around the border of two.
pub const BURST: u64 = 1_000_000_000;

/// How far a flow that carries too much can get behind. It must carry less for that long before it is relayed again.
pub const LONGEST_ARREARS: u64 = 1_000_000_000;

/// The cost of a rate in bytes per second, as [`LeaseTerms::rate_cost`](crate::LeaseTerms::rate_cost) has it.
/// Rates are at least 1000 bytes per second, so that no product overflows.
pub const fn cost(rate: u64) -> u64 {
    const LEAST: u64 = 1000;
    let rate = if rate < LEAST { LEAST } else { rate };
    match (1_000_000_000_u64 << 20).checked_div(rate) {
        Some(0) | None => 1,
        Some(cost) => cost,
    }
}

/// Counts a packet with this many bytes of application data. True where the flow carries more than its rate.
///
/// All bytes count as the client's side has them, with a ChannelData header. One word holds the whole state, as in
/// virtual scheduling (ITU-T I.371, annex A): the time until which the packets so far would take at the rate.
#[inline(always)]
pub fn spend(flow: &mut Flow, length: u16, now: u64, cost: u64) -> bool {
    let bytes = u64::from(length).wrapping_add(ChannelDataHeader::LEN as u64);
    let takes = bytes.wrapping_mul(cost) >> 20;
    let latest = now.wrapping_add(BURST).wrapping_add(LONGEST_ARREARS);
    flow.busy_until = flow.busy_until.max(now).wrapping_add(takes).min(latest);
    is_over(flow, now)
}

/// True where the flow has carried more than its rate.
#[inline(always)]
pub fn is_over(flow: &Flow, now: u64) -> bool {
    flow.busy_until > now.wrapping_add(BURST)
}
