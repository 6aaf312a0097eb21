//! The BPF object: programs that hand each packet to `turn-datapath` and do what it says, two for what comes in, of which an
//! interface gets one, and one for what leaves; one more for generic mode; and others that watch whether drivers transmit what they
//! are given.
#![no_std]
#![no_main]

mod frames;
mod maps;
mod resizing;
mod socket_buffer;
mod transmission;

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::bindings::TC_ACT_REDIRECT;
use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::{bpf_loop, bpf_redirect};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use turn_datapath::egress::LONGEST_TRAIN;
use turn_datapath::joining::{self, is_joining};
use turn_datapath::unseen_train::{MOST_STEPS, Summing};
use turn_datapath::{Action, FlowKey, Frame as _, Outgoing, Reason};

use crate::frames::{PassedFrame, SkbFrame, XdpFrame};
use crate::maps::{KEY, Maps, TcMaps, count, lease_terms};
use crate::socket_buffer::IncomingFrame;

pub use transmission::{turn_bpf_probe, turn_bpf_redirected, turn_bpf_refused, turn_bpf_transmitted};

/// Lets the next program, or the stack, have the packet (`TCX_NEXT`, which clsact knows as `TC_ACT_UNSPEC`).
const TC_NEXT: i32 = -1;
const TC_REDIRECT: i32 = TC_ACT_REDIRECT as i32;

/// Every packet that comes in by an interface, also where it lies in several parts (jumbo frames).
#[xdp(frags)]
pub fn turn_bpf_xdp(context: XdpContext) -> u32 {
    handle(context.ctx)
}

/// The same in generic mode, where a packet may be several.
#[xdp(frags)]
pub fn turn_bpf_xdpskb(context: XdpContext) -> u32 {
    if is_unseen_train(context.ctx) != 0 {
        count(Reason::UnseenTrain);
        return XDP_PASS;
    }
    handle(context.ctx)
}

#[inline(always)]
fn handle(context: *mut xdp_md) -> u32 {
    let verdict = relay(context);
    match verdict {
        NOT_UDP => hear(context),
        NO_FLOW => note(context),
        verdict => return verdict,
    };
    XDP_PASS
}

/// A packet whose checksum is being made.
struct Checked {
    frame: XdpFrame,
    summing: Summing,
}

/// Not zero where the checksum is not that of the packet.
#[inline(never)]
extern "C" fn is_unseen_train(context: *mut xdp_md) -> u32 {
    let frame = XdpFrame::new(XdpContext::new(context));
    let Some(summing) = Summing::begin(&frame) else {
        return 0;
    };
    let mut checked = Checked { frame, summing };
    let callback: unsafe extern "C" fn(u32, *mut Checked) -> i64 = add_some;
    // SAFETY: the helper hands this very pointer to `add_some`, in one call after the other, and returns before `checked` ends.
    unsafe { bpf_loop(MOST_STEPS, callback as *mut c_void, (&raw mut checked).cast(), 0) };
    u32::from(!checked.summing.is_right())
}

/// Not zero where there was nothing to add any more.
#[inline(never)]
extern "C" fn add_some(number: u32, checked: *mut Checked) -> i64 {
    // SAFETY: the only caller gives a pointer to a whole `Checked` that it does not use during the call.
    let Checked { frame, summing } = unsafe { &mut *checked };
    i64::from(!summing.step(frame, number))
}

/// No verdicts of the kernel's.
const NOT_UDP: u32 = u32::MAX;
const NO_FLOW: u32 = u32::MAX - 1;

/// Relays a packet, or says what becomes of it otherwise. Not inlined, as [`hear`] is not, so that they share their stack.
#[inline(never)]
extern "C" fn relay(context: *mut xdp_md) -> u32 {
    let context = XdpContext::new(context);
    let ifindex = context.ingress_ifindex() as u32;
    let mut frame = XdpFrame::new(context);
    let mut key = FlowKey::default();
    match turn_datapath::ingress(&mut frame, &Maps, &lease_terms(), ifindex, &mut key) {
        Action::Transmit => {
            count(Reason::Relayed);
            XDP_TX
        }
        Action::Redirect => {
            count(Reason::Redirected);
            XDP_REDIRECT
        }
        Action::Pass(Reason::NotUdp) => NOT_UDP,
        Action::Pass(reason) => {
            count(reason);
            if reason == Reason::NoFlow && is_joining(&Maps, &lease_terms()) { NO_FLOW } else { XDP_PASS }
        }
        Action::Copy(message) => {
            count(if frame.copy_to_daemon(&key, &message) { Reason::Control } else { Reason::ControlLost });
            XDP_PASS
        }
    }
}

/// Looks at what a packet says that is not UDP.
#[inline(never)]
extern "C" fn hear(context: *mut xdp_md) -> u32 {
    let reason =
        turn_datapath::path_mtu::hear(&XdpFrame::new(XdpContext::new(context)), &Maps, &lease_terms());
    count(reason);
    reason as u32
}

/// Notes a packet that belongs to no known flow.
#[inline(never)]
extern "C" fn note(context: *mut xdp_md) -> u32 {
    joining::note(&XdpFrame::new(XdpContext::new(context)), &Maps);
    0
}

/// Every packet that comes in by an interface where no XDP program of ours can be: the same, later and slower.
///
/// What it redirects goes through the egress program, too, which believes nothing that came in by an interface.
#[classifier]
pub fn turn_bpf_ingress(context: TcContext) -> i32 {
    let verdict = relay_at_tc(context.skb.skb);
    match verdict {
        TC_NOT_UDP => hear_at_tc(context.skb.skb),
        TC_NO_FLOW => note_at_tc(context.skb.skb),
        verdict => return verdict,
    };
    TC_NEXT
}

/// No verdicts of the kernel's.
const TC_NOT_UDP: i32 = i32::MAX;
const TC_NO_FLOW: i32 = i32::MAX - 1;

/// As [`relay`].
#[inline(never)]
extern "C" fn relay_at_tc(context: *mut __sk_buff) -> i32 {
    let mut frame = IncomingFrame::new(TcContext::new(context));
    let ifindex = frame.ifindex();
    let Some(key) = KEY.get_ptr_mut(0) else {
        return TC_NEXT;
    };
    // SAFETY: the pointer is to this CPU's own slot, which nobody else touches while the program runs.
    let key = unsafe { &mut *key };
    match turn_datapath::ingress(&mut frame, &TcMaps, &lease_terms(), ifindex, key) {
        Action::Transmit => {
            // SAFETY: the helper only notes where the packet is to go.
            unsafe { bpf_redirect(frame.ifindex(), 0) };
            count(Reason::Relayed);
            TC_REDIRECT
        }
        Action::Redirect => {
            count(Reason::Redirected);
            TC_REDIRECT
        }
        Action::Pass(Reason::NotUdp) => TC_NOT_UDP,
        Action::Pass(reason) => {
            count(reason);
            if reason == Reason::NoFlow && is_joining(&Maps, &lease_terms()) { TC_NO_FLOW } else { TC_NEXT }
        }
        Action::Copy(message) => {
            count(if frame.copy_to_daemon(key, &message) { Reason::Control } else { Reason::ControlLost });
            TC_NEXT
        }
    }
}

/// As [`hear`].
#[inline(never)]
extern "C" fn hear_at_tc(context: *mut __sk_buff) -> u32 {
    let frame = SkbFrame::new(TcContext::new(context));
    let reason = turn_datapath::path_mtu::hear(&frame, &TcMaps, &lease_terms());
    count(reason);
    reason as u32
}

/// As [`note`].
#[inline(never)]
extern "C" fn note_at_tc(context: *mut __sk_buff) -> u32 {
    joining::note(&IncomingFrame::new(TcContext::new(context)), &Maps);
    0
}

/// Every packet that the XDP program has let pass in generic mode: whether it has a VLAN tag that was not seen there.
#[classifier]
pub fn turn_bpf_unseen_tag(context: TcContext) -> i32 {
    let frame = PassedFrame::new(context);
    if let Some(key) = KEY.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own slot, which nobody else touches while the program runs.
        let key = unsafe { &mut *key };
        if let Some(reason) = turn_datapath::unseen_tag::confirm(&frame, &Maps, frame.beside().tag, key) {
            count(reason);
        }
    }
    TC_NEXT
}

/// Every packet that leaves by an interface.
#[classifier]
pub fn turn_bpf_egress(context: TcContext) -> i32 {
    let mut leaving = Leaving { frame: SkbFrame::new(context), outgoing: MaybeUninit::uninit() };
    if read(&mut leaving) == 0 {
        return TC_NEXT;
    }
    if leaving.frame.sent().segment == 0 {
        look(0, &mut leaving);
        if is_joining(&Maps, &lease_terms()) {
            sight(&mut leaving);
        }
        return TC_NEXT;
    }
    let callback: unsafe extern "C" fn(u32, *mut Leaving) -> i64 = look;
    // SAFETY: the helper hands this very pointer to `look`, in one call after the other, and returns before `leaving` ends.
    let looks = unsafe { bpf_loop(LONGEST_TRAIN, callback as *mut c_void, (&raw mut leaving).cast(), 0) };
    // The last look finds that there are no more.
    if looks > 2 {
        count(Reason::EgressTrain);
    }
    TC_NEXT
}

/// A packet that leaves.
///
/// The functions that work on it are not inlined: the stack of one may lie where the other's was, and the verifier follows
/// [`look`] once and not for each datagram of a train.
struct Leaving {
    frame: SkbFrame,
    outgoing: MaybeUninit<Outgoing>,
}

/// Reads the headers. Zero where there is nothing to look at.
#[inline(never)]
extern "C" fn read(leaving: &mut Leaving) -> i64 {
    match Outgoing::read(&leaving.frame, &leaving.frame.sent()) {
        Ok(outgoing) => {
            leaving.outgoing.write(outgoing);
            1
        }
        Err(reason) => {
            count(reason);
            0
        }
    }
}

/// Looks at one datagram. Not zero where there are not as many.
#[inline(never)]
extern "C" fn look(number: u32, leaving: *mut Leaving) -> i64 {
    // SAFETY: both callers give a pointer to a whole `Leaving` that they do not use during the call.
    let Leaving { frame, outgoing } = unsafe { &mut *leaving };
    // SAFETY: it was read before anybody looks.
    let outgoing = unsafe { outgoing.assume_init_mut() };
    let Some(seen) = outgoing.look(frame, &Maps, &lease_terms(), &frame.sent(), number) else {
        return 1;
    };
    count(seen.reason);
    if let Some(message) = seen.message {
        count(if frame.copy_to_daemon(outgoing.key(), &message) {
            Reason::EgressControl
        } else {
            Reason::ControlLost
        });
    }
    0
}

/// Reports the packet where no flow expects it.
#[inline(never)]
extern "C" fn sight(leaving: &mut Leaving) -> i64 {
    let Leaving { frame, outgoing } = leaving;
    // SAFETY: it was read before.
    let outgoing = unsafe { outgoing.assume_init_mut() };
    joining::sight(frame, &Maps, &frame.sent(), outgoing);
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
