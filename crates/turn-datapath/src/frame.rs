//! The two traits that the kernel and the host each implement.

use core::ops::DerefMut;

use turn_wire::ethernet::VlanTags;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::control::FlowEvent;
use crate::{Flow, FlowKey, Interface, PathMtu};

/// A packet from its Ethernet header on.
///
/// It may lie in several parts. Headers are read and written in the first one only, everything else wherever it is. Headers are copied out and copied in, so that no reference into the packet outlives a change of its start.
pub trait Frame {
    /// True where a VLAN tag is kept beside the bytes of the frame, and more than one is not dealt with.
    const HAS_TAG_BESIDE: bool = false;

    /// How many bytes there are behind this offset; none where the frame ends before it. Where the first part ends just there,
    /// others need not count.
    fn behind(&self, end: usize) -> Option<usize>;

    /// True where the first part of the frame reaches as far as this offset.
    fn is_whole(&self, end: usize) -> bool;

    /// A copy of the header at this offset; none where the first part ends before it.
    fn get<H: FromBytes + Copy>(&self, at: usize) -> Option<H>;

    /// Writes a header at this offset. False, and nothing is written, where the first part ends before it.
    fn put<H: IntoBytes + Immutable + Copy>(&mut self, at: usize, header: &H) -> bool;

    /// Copies `length` bytes, 1 to 32, from this offset to the start of the buffer, in memory order.
    fn copy(&self, at: usize, length: usize, buffer: &mut [u64; 4]) -> bool;

    /// Moves the start of the frame forward by this many bytes, or backward where negative. False, and
    /// nothing is changed, where there is no room.
    fn move_head(&mut self, by: i32) -> bool;

    /// Takes this many bytes from the end of the frame. False, and nothing is changed, where that cannot be.
    fn cut_tail(&mut self, by: usize) -> bool;

    /// What came with the frame beside its bytes.
    #[inline(always)]
    fn beside(&self) -> Beside {
        Beside { is_train: false, tag: VlanTags::NONE }
    }

    /// Gives the frame room for other headers. False, and nothing is changed, where that cannot be.
    #[inline(always)]
    fn resize(&mut self, resizing: &Resizing) -> bool {
        let Resizing { head_by, tail_by, .. } = *resizing;
        if head_by != 0 && !self.move_head(head_by) {
            return false;
        }
        if tail_by != 0 && !self.cut_tail(tail_by) {
            self.move_head(head_by.wrapping_neg());
            return false;
        }
        true
    }

    /// Replaces the VLAN tag that is kept beside the bytes of the frame ([`Self::HAS_TAG_BESIDE`]). Cannot fail.
    #[inline(always)]
    fn set_tag_beside(&mut self, _tag: VlanTags) {}
}

/// What is known of a frame that came in beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beside {
    /// Several datagrams that were merged (UDP receive offload), whose headers say that they are one.
    pub is_train: bool,
    /// The VLAN tag, which was taken from the frame.
    pub tag: VlanTags,
}

/// From the headers that a frame has to those that it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resizing {
    /// By how many bytes its start moves forward, or backward where negative.
    pub head_by: i32,
    /// Bytes that are taken from its end.
    pub tail_by: usize,
    /// It is an IPv4 packet.
    pub from_v4: bool,
    /// It is to be one.
    pub to_v4: bool,
}

/// The state that outlives a packet.
pub trait Flows {
    /// Access to a flow in its place.
    type Entry<'a>: DerefMut<Target = Flow>
    where
        Self: 'a;

    /// The flow with this key.
    fn flow(&self, key: &FlowKey) -> Option<Self::Entry<'_>>;

    /// The key of the flow that an output with this key proves.
    fn expected(&self, output: &FlowKey) -> Option<FlowKey>;

    /// True where this key, from client to server and without a channel, is the 5-tuple of an allocation.
    fn is_client(&self, key: &FlowKey) -> bool;

    /// Remembers the 5-tuple of an allocation.
    fn add_client(&self, key: &FlowKey);

    /// No server listens at this UDP port, or at one beyond.
    fn listening_below(&self) -> u32;

    /// False where the requests of clients that are not known have become too many to look at.
    fn admit_stranger(&self) -> bool;

    /// What is known of an interface; none where the daemon did not attach to it.
    fn interface(&self, ifindex: u32) -> Option<Interface>;

    /// What the kernel's routing says of the path of the flow with this key, where the daemon has asked.
    fn path_mtu(&self, key: &FlowKey) -> Option<PathMtu>;

    /// Nanoseconds of a monotonic clock.
    fn now(&self) -> u64;

    /// Makes ready to redirect the frame to this interface. Where the answer is false that cannot be.
    fn prepare_redirect(&self, ifindex: u32) -> bool;

    /// Tells the daemon.
    fn report(&self, event: &FlowEvent);
}
