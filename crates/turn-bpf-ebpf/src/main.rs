//! The BPF object: two programs that hand each packet to `turn-datapath` and do what it says, and others that watch
//! whether drivers transmit what they are given.
#![no_std]
#![no_main]

mod frames;
mod maps;
mod transmission;

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use turn_datapath::egress::Sent;
use turn_datapath::{Action, Reason};

use crate::frames::{SkbFrame, XdpFrame};
use crate::maps::{Maps, count, lease_terms};

pub use transmission::{turn_bpf_probe, turn_bpf_redirected, turn_bpf_refused, turn_bpf_transmitted};

/// Lets the next program, or the stack, have the packet (`TCX_NEXT`, which clsact knows as `TC_ACT_UNSPEC`).
const TC_NEXT: i32 = -1;

/// Every packet that comes in by an interface.
#[xdp]
pub fn turn_bpf_xdp(context: XdpContext) -> u32 {
    let ifindex = context.ingress_ifindex() as u32;
    let mut frame = XdpFrame::new(context);
    match turn_datapath::ingress(&mut frame, &Maps, &lease_terms(), ifindex) {
        Action::Transmit => {
            count(Reason::Relayed);
            XDP_TX
        }
        Action::Redirect => {
            count(Reason::Redirected);
            XDP_REDIRECT
        }
        Action::Pass(reason) => {
            count(reason);
            XDP_PASS
        }
        Action::Copy(message) => {
            count(if frame.copy_to_daemon(&message) { Reason::Control } else { Reason::ControlLost });
            XDP_PASS
        }
    }
}

/// Every packet that leaves by an interface.
#[classifier]
pub fn turn_bpf_egress(context: TcContext) -> i32 {
    let frame = SkbFrame::new(context);
    let sent: Sent = frame.sent();
    let seen = turn_datapath::egress(&frame, &Maps, &lease_terms(), &sent);
    count(seen.reason);
    if let Some(message) = seen.message {
        count(if frame.copy_to_daemon(&message) { Reason::EgressControl } else { Reason::ControlLost });
    }
    TC_NEXT
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
