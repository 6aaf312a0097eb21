//! Whether drivers transmit what they are given. A program cannot know: it says "transmit" or "redirect", and a driver
//! that cannot throws the frame away. The kernel's own tracepoints tell.

use aya_ebpf::bindings::xdp_action::XDP_TX;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::macros::{raw_tracepoint, xdp};
use aya_ebpf::programs::{RawTracePointContext, XdpContext};
use turn_datapath::control::{FlowEvent, RecordHeader, kind};
use turn_datapath::{FlowKey, Flows as _, Reason};
use turn_wire::{Be16, IpAddress};

use crate::maps::{Maps, count_many};

/// Where in the running kernel's `struct net_device` the ifindex is. Set by the daemon before it loads the object.
#[unsafe(no_mangle)]
static IFINDEX_OFFSET: u64 = 0;

/// Transmits what the daemon feeds to it, to see whether the driver does.
#[xdp]
pub fn turn_bpf_probe(_context: XdpContext) -> u32 {
    XDP_TX
}

/// Redirected frames went to a driver: device they came by, device they go to, frames sent, frames dropped, error.
#[raw_tracepoint(tracepoint = "xdp_devmap_xmit")]
pub fn turn_bpf_redirected(context: RawTracePointContext) -> i32 {
    watch(context.arg(1), context.arg(3), context.arg(4));
    0
}

/// Frames went back to the driver that they came from: device, frames sent, frames dropped, error.
#[raw_tracepoint(tracepoint = "xdp_bulk_tx")]
pub fn turn_bpf_transmitted(context: RawTracePointContext) -> i32 {
    watch(context.arg(0), context.arg(2), context.arg(3));
    0
}

/// A frame was not even queued for the driver that it was redirected to: device it came by, program, target, error,
/// kind of map, id of map, key in the map.
#[raw_tracepoint(tracepoint = "xdp_redirect_err")]
pub fn turn_bpf_refused(context: RawTracePointContext) -> i32 {
    // Only where this object's program runs does the key mean an ifindex.
    if ifindex(context.arg(0)).is_some_and(is_ours) {
        report(context.arg(6), 1, context.arg(3));
    }
    0
}

#[inline(always)]
fn watch(device: *const u8, dropped: i32, error: i32) {
    if dropped <= 0 {
        return;
    }
    if let Some(ifindex) = ifindex(device)
        && is_ours(ifindex)
    {
        report(ifindex, dropped as u64, error);
    }
}

#[inline(always)]
fn ifindex(device: *const u8) -> Option<u32> {
    // SAFETY: a reference to a static is valid; the read is volatile because the loader replaces the value.
    let offset = unsafe { core::ptr::read_volatile(&IFINDEX_OFFSET) };
    // SAFETY: the helper checks the address; the tracepoint's argument is a device that exists.
    unsafe { bpf_probe_read_kernel(device.wrapping_add(offset as usize).cast::<u32>()) }.ok()
}

#[inline(always)]
fn is_ours(ifindex: u32) -> bool {
    Maps.interface(ifindex).is_some()
}

#[inline(always)]
fn report(ifindex: u32, dropped: u64, error: i32) {
    count_many(Reason::TransmitFailed, dropped);
    // Without an error the driver had no room just then, and takes the next frames.
    if error < 0 {
        // Tracepoints may not read the coarse clock, and nobody asks when.
        let header =
            RecordHeader { kind: kind::TRANSMIT_FAILED, length: ifindex, time: 0, key: FlowKey::default() };
        Maps.report(&FlowEvent {
            header,
            out_source: IpAddress::ANY,
            out_source_port: Be16::new(0),
            reserved: [0; 3],
        });
    }
}
