//! A packet that came in, as a TC program has it: read where it lies, and rewritten through the kernel's helpers.
//!
//! It is never written to directly. For a program that does so, the verifier puts a copy of every shared packet before its
//! first instruction, and a drop where there is no memory for it (`bpf_unclone_prologue`).

use aya_ebpf::bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM};
use aya_ebpf::helpers::{bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push};
use aya_ebpf::programs::TcContext;
use turn_datapath::{Beside, ControlMessage, FlowKey, Frame, Resizing};
use turn_wire::Be16;
use turn_wire::ethernet::{EthernetHeader, VlanTags};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::frames::SkbFrame;
use crate::resizing::{BECOMES_V4, HEADERS, IS_V4, resize};

/// A frame that came in.
pub struct IncomingFrame(SkbFrame);

impl IncomingFrame {
    #[inline(always)]
    pub fn new(context: TcContext) -> Self {
        let mut frame = Self(SkbFrame::new(context));
        let wanted = frame.0.context().len.min(HEADERS);
        if frame.0.first_part() < wanted as usize {
            // Where that fails, it is left to the server.
            frame.own(wanted);
        }
        frame
    }

    /// The interface that it came by.
    #[inline(always)]
    pub fn ifindex(&self) -> u32 {
        self.0.context().ifindex
    }

    /// Copies a control message to the ring buffer. False where the buffer is full.
    #[inline(always)]
    pub fn copy_to_daemon(&self, key: &FlowKey, message: &ControlMessage) -> bool {
        self.0.copy_to_daemon(key, message)
    }

    #[inline(always)]
    fn context(&self) -> *mut __sk_buff {
        self.0.as_ptr()
    }

    /// Has the packet lie in one piece as far as this offset, and be nobody else's.
    #[inline(always)]
    fn own(&mut self, end: u32) -> bool {
        // SAFETY: the context is this program's own. No pointer into the packet outlives a method of this type.
        unsafe { bpf_skb_pull_data(self.context(), end) == 0 }
    }
}

impl Frame for IncomingFrame {
    const HAS_TAG_BESIDE: bool = true;

    #[inline(always)]
    fn behind(&self, end: usize) -> Option<usize> {
        self.0.behind(end)
    }

    #[inline(always)]
    fn is_whole(&self, end: usize) -> bool {
        self.0.is_whole(end)
    }

    #[inline(always)]
    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H> {
        self.0.get_direct(at)
    }

    #[inline(always)]
    fn put<H: IntoBytes + Immutable + Copy>(&mut self, at: usize, header: &H) -> bool {
        // What a device has summed up begins with the IP header (CHECKSUM_COMPLETE).
        let flags = if at < EthernetHeader::LEN { 0 } else { u64::from(BPF_F_RECOMPUTE_CSUM) };
        let from = (&raw const *header).cast();
        // SAFETY: `from` points to as many readable bytes, and the helper checks offset and length against the packet.
        unsafe { bpf_skb_store_bytes(self.context(), at as u32, from, size_of::<H>() as u32, flags) == 0 }
    }

    #[inline(always)]
    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool {
        self.0.copy(at, length, buffer)
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

    #[inline(always)]
    fn resize(&mut self, resizing: &Resizing) -> bool {
        let Resizing { head_by, tail_by, from_v4, to_v4 } = *resizing;
        let from_v4 = if from_v4 { IS_V4 } else { 0 };
        let to_v4 = if to_v4 { BECOMES_V4 } else { 0 };
        resize(self.context(), head_by, tail_by as u32, from_v4 | to_v4)
    }

    #[inline(always)]
    fn set_tag_beside(&mut self, tag: VlanTags) {
        if self.beside().tag == tag {
            return;
        }
        // Neither helper touches the bytes: there is one tag at the most, and the kernel keeps it beside them.
        // SAFETY: as above.
        unsafe { bpf_skb_vlan_pop(self.context()) };
        if let Some((protocol, control)) = tag.innermost() {
            // SAFETY: as above.
            unsafe { bpf_skb_vlan_push(self.context(), protocol.raw(), Be16::value(control)) };
        }
    }
}
