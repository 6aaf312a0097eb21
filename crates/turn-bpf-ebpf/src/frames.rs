//! Access to the bytes of a packet. All pointers into packets are in this file.

use core::mem::{MaybeUninit, offset_of};

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_MAC};
use aya_ebpf::helpers::{
    bpf_skb_load_bytes, bpf_skb_load_bytes_relative, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
    bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::programs::{TcContext, XdpContext};
use turn_datapath::control::{ControlMessage, MAX_MESSAGE, RecordHeader};
use turn_datapath::egress::Sent;
use turn_datapath::{Beside, FlowKey, Flows as _, Frame};
use turn_wire::Be16;
use turn_wire::ethernet::{EthernetHeader, VlanTags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::maps::{CONTROL, Maps};

/// No header lies beyond this offset; the verifier wants to see a bound.
const MAX_OFFSET: usize = 0x7fff;

/// A control message on its way to the daemon.
#[repr(C)]
struct ControlRecord {
    header: RecordHeader,
    message: [u8; MAX_MESSAGE],
}

/// A frame as an XDP program has it.
pub struct XdpFrame(XdpContext);

impl XdpFrame {
    #[inline(always)]
    pub fn new(context: XdpContext) -> Self {
        Self(context)
    }

    #[inline(always)]
    fn pointer<H>(&self, at: usize) -> Option<*mut H> {
        if at > MAX_OFFSET {
            return None;
        }
        let start = self.0.data() + at;
        (start + size_of::<H>() <= self.0.data_end()).then_some(start as *mut H)
    }

    /// Copies a control message to the ring buffer. False where the buffer is full.
    #[inline(always)]
    pub fn copy_to_daemon(&self, key: &FlowKey, message: &ControlMessage) -> bool {
        let context = self.0.as_ptr();
        copy_to_daemon(key, message, |at, to, length| {
            // SAFETY: `to` points to `length` writable bytes, and the helper checks offset and length against
            // the packet.
            unsafe { bpf_xdp_load_bytes(context.cast(), at, to.cast(), length) }
        })
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn behind(&self, end: usize) -> Option<usize> {
        let mut length = self.0.data_end() - self.0.data();
        if end != length {
            // SAFETY: the context is this program's own.
            length = unsafe { bpf_xdp_get_buff_len(self.0.ctx) } as usize;
        }
        length.checked_sub(end)
    }

    #[inline(always)]
    fn is_whole(&self, end: usize) -> bool {
        end <= self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        // SAFETY: `pointer` compared the end of the header with the end of the packet, and every bit pattern is a
        // valid `H`. The address may be less aligned than `H` demands: BPF has plain loads for packets, and the
        // verifier refuses them on machines that would trap.
        self.pointer::<H>(at).map(|header| unsafe { *header })
    }

    #[inline(always)]
    fn put<H: IntoBytes + Immutable + Copy>(&mut self, at: usize, header: &H) -> bool {
        let Some(place) = self.pointer::<H>(at) else {
            return false;
        };
        // SAFETY: as in `get`; the packet is this program's alone while it runs.
        unsafe { *place = *header };
        true
    }

    #[inline(always)]
    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool {
        let Some(length) = bounded(length, size_of_val(buffer)) else {
            return false;
        };
        let to = buffer.as_mut_ptr();
        // SAFETY: the buffer holds `length` bytes, as was just checked; the helper checks the packet's end.
        unsafe { bpf_xdp_load_bytes(self.0.ctx, at as u32, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn move_head(&mut self, by: i32) -> bool {
        // SAFETY: the context is this program's own. No pointer into the packet outlives a method of this type.
        unsafe { bpf_xdp_adjust_head(self.0.ctx, by) == 0 }
    }

    #[inline(always)]
    fn cut_tail(&mut self, by: usize) -> bool {
        // SAFETY: as above.
        unsafe { bpf_xdp_adjust_tail(self.0.ctx, -(by as i32)) == 0 }
    }
}

/// A frame as a TC program has it. It is only read.
pub struct SkbFrame(TcContext);

impl SkbFrame {
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        Self(context)
    }

    /// What the kernel shows of the packet.
    #[inline(always)]
    pub fn context(&self) -> &__sk_buff {
        // SAFETY: the context is valid while the program runs.
        unsafe { &*self.0.skb.skb }
    }

    /// The same for the helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut __sk_buff {
        self.0.skb.skb
    }

    /// What is known of a packet that leaves beside its bytes.
    #[inline(always)]
    pub fn sent(&self) -> Sent {
        let skb = self.context();
        let Beside { tag, .. } = self.beside();
        let segment = skb.gso_size as u16;
        Sent { ifindex: skb.ifindex, by_this_host: skb.ingress_ifindex == 0, segment, tag }
    }

    /// Bytes in the first part.
    #[inline(always)]
    pub fn first_part(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    /// A copy of the header at this offset, read where it lies; none where the first part ends before it.
    #[inline(always)]
    pub fn get_direct<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        if at > MAX_OFFSET {
            return None;
        }
        let start = self.0.data() + at;
        // SAFETY: as for XDP.
        (start + size_of::<H>() <= self.0.data_end()).then(|| unsafe { *(start as *const H) })
    }

    /// Copies a control message to the ring buffer. False where the buffer is full.
    #[inline(always)]
    pub fn copy_to_daemon(&self, key: &FlowKey, message: &ControlMessage) -> bool {
        let context = self.0.as_ptr();
        copy_to_daemon(key, message, |at, to, length| {
            // SAFETY: as for XDP.
            unsafe { bpf_skb_load_bytes(context, at, to.cast(), length) }
        })
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn behind(&self, end: usize) -> Option<usize> {
        (self.0.len() as usize).checked_sub(end)
    }

    #[inline(always)]
    fn is_whole(&self, _end: usize) -> bool {
        true
    }

    #[inline(always)]
    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        let mut header = MaybeUninit::<H>::uninit();
        // SAFETY: `header` has room for its own size, and the helper checks offset and length against the packet.
        let result = unsafe {
            bpf_skb_load_bytes(self.0.as_ptr(), at as u32, header.as_mut_ptr().cast(), size_of::<H>() as u32)
        };
        // SAFETY: the helper succeeded, so it filled all of `header`; every bit pattern is a valid `H`.
        (result == 0).then(|| unsafe { header.assume_init() })
    }

    #[inline(always)]
    fn put<H: IntoBytes + Immutable + Copy>(&mut self, _at: usize, _header: &H) -> bool {
        false
    }

    #[inline(always)]
    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool {
        let Some(length) = bounded(length, size_of_val(buffer)) else {
            return false;
        };
        let to = buffer.as_mut_ptr();
        // SAFETY: the buffer holds `length` bytes, as was just checked; the helper checks the packet's end.
        unsafe { bpf_skb_load_bytes(self.0.as_ptr(), at as u32, to.cast(), length) == 0 }
    }

    #[inline(always)]
    fn move_head(&mut self, _by: i32) -> bool {
        false
    }

    #[inline(always)]
    fn cut_tail(&mut self, _by: usize) -> bool {
        false
    }

    #[inline(always)]
    fn beside(&self) -> Beside {
        let skb = self.context();
        Beside {
            is_train: skb.gso_size != 0,
            tag: if skb.vlan_present != 0 {
                VlanTags::one(Be16::from_raw(skb.vlan_proto as u16), Be16::new(skb.vlan_tci as u16))
            } else {
                VlanTags::NONE
            },
        }
    }
}

/// A frame that XDP has let pass in generic mode, as a TC program has it. It is only read.
///
/// From 6.9 on the kernel may copy the packet for XDP and forget how long its Ethernet header is (`mac_len`). Then all that TC knows of
/// a frame begins with its IP header, and only its own note of where the Ethernet header begins is right.
pub struct PassedFrame(SkbFrame);

impl PassedFrame {
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        Self(SkbFrame::new(context))
    }

    /// Copies `length` bytes from this offset behind the start of the Ethernet header.
    ///
    /// # Safety
    ///
    /// `to` points to as many writable bytes.
    #[inline(always)]
    unsafe fn load(&self, at: usize, to: *mut u8, length: u32) -> bool {
        // SAFETY: the helper checks offset and length against the first part of the packet; for `to` the caller answers.
        unsafe {
            bpf_skb_load_bytes_relative(
                self.0.as_ptr().cast(),
                at as u32,
                to.cast(),
                length,
                BPF_HDR_START_MAC,
            ) == 0
        }
    }
}

impl Frame for PassedFrame {
    /// XDP has seen that it is whole; here it may look longer than it is.
    #[inline(always)]
    fn behind(&self, end: usize) -> Option<usize> {
        (self.0.context().len as usize).wrapping_add(EthernetHeader::LEN).checked_sub(end)
    }

    #[inline(always)]
    fn is_whole(&self, _end: usize) -> bool {
        true
    }

    #[inline(always)]
    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        let mut header = MaybeUninit::<H>::uninit();
        // SAFETY: `header` has room for its own size. Where the call succeeds it has filled all of it, and every bit pattern is a
        // valid `H`.
        unsafe {
            self.load(at, header.as_mut_ptr().cast(), size_of::<H>() as u32).then(|| header.assume_init())
        }
    }

    #[inline(always)]
    fn put<H: IntoBytes + Immutable + Copy>(&mut self, _at: usize, _header: &H) -> bool {
        false
    }

    #[inline(always)]
    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool {
        let Some(length) = bounded(length, size_of_val(buffer)) else {
            return false;
        };
        // SAFETY: the buffer holds `length` bytes, as was just checked.
        unsafe { self.load(at, buffer.as_mut_ptr().cast(), length) }
    }

    #[inline(always)]
    fn move_head(&mut self, _by: i32) -> bool {
        false
    }

    #[inline(always)]
    fn cut_tail(&mut self, _by: usize) -> bool {
        false
    }

    #[inline(always)]
    fn beside(&self) -> Beside {
        self.0.beside()
    }
}

#[inline(always)]
fn copy_to_daemon(
    key: &FlowKey,
    message: &ControlMessage,
    load_bytes: impl Fn(u32, *mut u8, u32) -> i64,
) -> bool {
    let Some(length) = bounded(message.length, MAX_MESSAGE) else {
        return false;
    };
    let Some(mut record) = CONTROL.reserve_untyped::<ControlRecord>(0) else {
        return false;
    };
    let header = RecordHeader { kind: message.kind, length, time: Maps.now(), key: *key };
    let place = record.as_mut_ptr();
    // SAFETY: the ring buffer gave room for a whole record; the fields are written without being read first.
    let result = unsafe {
        (&raw mut (*place).header).write(header);
        load_bytes(message.at as u32, place.cast::<u8>().add(offset_of!(ControlRecord, message)), length)
    };
    if result == 0 {
        record.submit(0);
        true
    } else {
        record.discard(0);
        false
    }
}

/// The length, where it is from 1 to `most`.
///
/// The compiler must not know that: it would drop a comparison that it can prove, or make one of the two, and the
/// verifier, which follows registers and not values, could no longer see the bounds. Of a comparison with zero the verifiers
/// before 6.8 learn nothing (d028f87517d6), therefore one is taken off before and added after.
#[inline(always)]
fn bounded(length: usize, most: usize) -> Option<u32> {
    // SAFETY: references to locals are valid for reads.
    let less_one = unsafe { core::ptr::read_volatile(&(length as u64).wrapping_sub(1)) };
    if less_one >= most as u64 {
        return None;
    }
    // A copy: what was stored before the comparison is not known to be bounded.
    let compared = less_one;
    // SAFETY: as above.
    let compared = unsafe { core::ptr::read_volatile(&compared) };
    Some((compared + 1) as u32)
}
