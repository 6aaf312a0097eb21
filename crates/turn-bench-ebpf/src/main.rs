//! The BPF object of the benchmark: programs that make packets, programs that count them, and bare programs to compare with.
#![no_std]
#![no_main]

mod packet;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, DevMap, HashMap, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::bpf_redirect;
use aya_ebpf::macros::{btf_map, classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use turn_bench_ebpf::{MOST_KEYS, Template};
use turn_datapath::{Flow, FlowKey};

use crate::packet::{is_udp_to, key, restore};

#[btf_map]
pub static TEMPLATE: Array<Template, 1> = Array::new();
/// The program that is measured.
#[btf_map]
pub static MEASURED: ProgramArray<1> = ProgramArray::new();
/// Where the frames that are made go.
#[btf_map]
pub static WIRE: DevMap<1> = DevMap::new();
/// Where the bare redirect goes.
#[btf_map]
pub static BARE: DevMap<1> = DevMap::new();
/// The interface that the bare redirect at TC goes to.
#[btf_map]
pub static BARE_TC: Array<u32, 1> = Array::new();
/// Frames that arrived where they are counted.
#[btf_map]
pub static ARRIVED: PerCpuArray<u64, 1> = PerCpuArray::new();
/// The first UDP port at which IPv4 packets are counted, and all others let pass. Zero: everything is counted.
#[btf_map]
pub static COUNTED_PORT: Array<u32, 1> = Array::new();
/// As turn-bpf's own, for what does nothing but look a key up.
#[btf_map]
pub static TABLE: HashMap<FlowKey, Flow, { MOST_KEYS as usize }> = HashMap::new();

/// Writes the frame and has the program that is measured run on it.
#[xdp(frags)]
pub fn bench_restore(context: XdpContext) -> u32 {
    if restore(&context).is_some() {
        // SAFETY: nothing in this program waits for a destructor.
        unsafe { MEASURED.tail_call(&context, 0) };
    }
    XDP_ABORTED
}

/// Writes the frame and sends it out.
#[xdp]
pub fn bench_generate(context: XdpContext) -> u32 {
    match restore(&context) {
        Some(()) => WIRE.redirect(0, 0).unwrap_or(XDP_ABORTED),
        None => XDP_ABORTED,
    }
}

/// Does nothing.
#[xdp(frags)]
pub fn bench_empty(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// Redirects by a map of devices, and does nothing else.
#[xdp(frags)]
pub fn bench_redirect(_context: XdpContext) -> u32 {
    BARE.redirect(0, 0).unwrap_or(XDP_ABORTED)
}

/// Sends back, and does nothing else.
#[xdp(frags)]
pub fn bench_transmit(_context: XdpContext) -> u32 {
    XDP_TX
}

/// Looks the packet's key up, reads a word of what it finds, and does nothing else.
#[xdp(frags)]
pub fn bench_lookup(context: XdpContext) -> u32 {
    match key(&context).and_then(|key| TABLE.get_ptr(&key)) {
        // SAFETY: a successful map lookup returned the pointer during this run of the program.
        Some(flow) if unsafe { (*flow).lease_until } != 0 => XDP_PASS,
        _ => XDP_ABORTED,
    }
}

/// Counts and drops: a receiver that costs next to nothing.
#[xdp(frags)]
pub fn bench_count(context: XdpContext) -> u32 {
    let port = COUNTED_PORT.get(0).copied().unwrap_or(0);
    if port != 0 && !is_udp_to(&context, port as u16) {
        return XDP_PASS;
    }
    if let Some(arrived) = ARRIVED.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own slot, which nobody else writes while the program runs.
        unsafe { *arrived = (*arrived).wrapping_add(1) }
    }
    XDP_DROP
}

/// Redirects at TC, and does nothing else.
#[classifier]
pub fn bench_tc_redirect(_context: TcContext) -> i32 {
    match BARE_TC.get(0) {
        // SAFETY: the helper only notes where the packet is to go.
        Some(ifindex) => unsafe { bpf_redirect(*ifindex, 0) as i32 },
        None => -1,
    }
}

/// Does nothing, at TC (`TCX_NEXT`).
#[classifier]
pub fn bench_next(_context: TcContext) -> i32 {
    -1
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
