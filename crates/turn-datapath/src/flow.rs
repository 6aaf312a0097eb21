//! Keys and values of the maps.

use turn_wire::ethernet::{MacAddress, VlanTags};
use turn_wire::{Be16, IpAddress};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What tells the packets of one flow from all others, as they are on the wire.
///
/// A flow is one direction of one channel binding. Both addresses are in the key, so that two servers, two
/// listeners or two relayed transport addresses never mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// Address of the sender; [`IpAddress::ANY`] in the key of an expected output whose sender is not known yet.
    /// Where not even the sender's port is known, that is zero too.
    pub source: IpAddress,
    /// Address of the receiver.
    pub destination: IpAddress,
    /// Port of the sender.
    pub source_port: Be16,
    /// Port of the receiver.
    pub destination_port: Be16,
    /// Channel number of the ChannelData message; zero for a plain datagram, which is no channel number.
    pub channel: Be16,
    /// Zero.
    pub reserved: Be16,
}

/// What to do with the packets of a flow, and until when.
///
/// The daemon inserts it and deletes it. In between only the kernel writes to it, in words that are each
/// complete in themselves.
///
/// The fields are in the order of their use, and there is room at the end: with its key and the map's own 48 bytes a flow takes
/// five cache lines of its own, the first four of which have all that a packet needs that is relayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// Packets are relayed before this time only. Zero: the flow never had a lease, or it was ended.
    pub lease_until: u64,
    /// From this time on one packet is due to go to the server.
    pub heartbeat_at: u64,
    /// Until this time the noted packet's translation is awaited. Zero: none is noted.
    pub noted_until: u64,
    /// Packets relayed in the kernel.
    pub kernel_packets: u64,
    /// Bytes of application data in them.
    pub kernel_bytes: u64,

    /// Interface of the way in.
    pub in_ifindex: u32,
    /// Receiver of the frames that come in.
    pub in_mac: MacAddress,
    /// Source port of the packet sent.
    pub out_source_port: Be16,
    /// Source of the packet sent.
    pub out_source: IpAddress,
    /// Destination of the packet sent.
    pub out_destination: IpAddress,
    /// Destination port of the packet sent.
    pub out_destination_port: Be16,
    /// Channel number of the ChannelData message sent; zero for a plain datagram.
    pub out_channel: Be16,
    /// Most bytes of IP packet that the interface of the way out takes.
    pub link_mtu: u16,
    /// Most bytes of IP packet that are relayed: the server was lately seen to send as many in one piece.
    pub out_mtu: u16,
    /// Interface of the way out.
    pub out_ifindex: u32,
    /// [`path_flags`], seen on the witness frame.
    pub path_flags: u32,
    /// How many packets the noted one follows that were noted before it and not seen coming out.
    pub noted_in_a_row: u16,
    /// Receiver of the noted packet's frame.
    pub noted_mac: MacAddress,
    /// Interface by which the noted packet came.
    pub noted_ifindex: u32,

    /// VLAN tags of the frames that come in, without priorities.
    pub in_tags: VlanTags,
    /// VLAN tags of the frame sent.
    pub out_tags: VlanTags,
    /// Receiver of the frame sent.
    pub out_mac_destination: MacAddress,
    /// Sender of the frame sent.
    pub out_mac_source: MacAddress,
    /// Flow label of an IPv6 packet sent, and the start of the identifications of IPv4 packets.
    pub label: u32,
    /// Until when the packets so far would take at [`LeaseTerms::rate_cost`].
    pub busy_until: u64,

    /// Fingerprint of the packet that went to the server and whose translation is awaited; with all bits turned where its VLAN tags were
    /// confirmed ([`crate::unseen_tag`]).
    pub noted_fingerprint: u64,
    /// VLAN tags of the noted packet's frame, without priorities.
    pub noted_tags: VlanTags,
    /// Packets of the flow that went to the server.
    pub spilled_packets: u64,
    /// Bytes of UDP payload in them, without ChannelData headers.
    pub spilled_bytes: u64,
    /// Leases granted to the flow while it had none.
    pub armed: u64,
    /// Until this time `out_mtu` holds, unless less or more is seen; then it falls to the length of the next witness.
    pub out_mtu_until: u64,
    /// From this time on the daemon may be asked what the path takes.
    pub longer_at: u64,
    /// Zeros.
    pub room: [u64; 3],
}

/// Bits of [`Flow::path_flags`].
pub mod path_flags {
    /// The server sends the flow's packets with the don't-fragment flag.
    pub const DONT_FRAGMENT: u32 = 1;
    /// The way out is an interface that takes redirected frames from the interface of the way in.
    pub const REDIRECT: u32 = 2;
    /// Frames leave by redirect even where the way out is the way in.
    pub const ONLY_REDIRECT: u32 = 4;
    /// The way out takes redirected frames that lie in several parts, too.
    pub const REDIRECT_PARTS: u32 = 8;
}

/// What the path of a flow takes, as the kernel's routing says: with what routers have said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PathMtu {
    /// Time of the flow's question that this answers.
    pub asked_at: u64,
    /// Most bytes of IP packet.
    pub mtu: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the daemon knows of an interface that it attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Interface {
    /// Most bytes of IP packet.
    pub mtu: u32,
    /// [`interface_flags`].
    pub flags: u32,
    /// No lease is granted by this way out from this time on, unless the daemon, which looks after it, has moved it on: no program
    /// sees by itself that a driver no longer transmits.
    pub looked_after_until: u64,
}

/// Bits of [`Interface::flags`].
pub mod interface_flags {
    /// The ingress program runs on socket buffers (generic XDP), whose redirects any interface takes.
    pub const GENERIC: u32 = 1;
    /// The driver transmits XDP frames that are redirected to the interface.
    pub const TRANSMITS: u32 = 2;
    /// The driver also transmits redirected XDP frames that lie in several parts (`NETDEV_XDP_ACT_NDO_XMIT_SG`).
    pub const TRANSMITS_PARTS: u32 = 8;
    /// Frames that go back by the interface that they came by are redirected to it: a virtual Ethernet link whose
    /// other end has GRO but no XDP program takes those, and keeps the others (`veth_xdp_flush`, up to 6.18).
    pub const ONLY_REDIRECT: u32 = 4;
    /// The ingress program runs at TC, on socket buffers with one VLAN tag at the most. It redirects to any interface.
    pub const TC: u32 = 16;
}

/// How long leases run and how often they are renewed, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTerms {
    /// From a witness to the end of the lease that it grants.
    pub lease: u64,
    /// From one packet that is spilled to the server to the next.
    pub heartbeat: u64,
    /// How long 2^20 bytes of a flow take at the highest rate that is relayed. Zero: there is no limit.
    pub rate_cost: u64,
    /// Until this time calls are looked for that are older than turn-bpf. Zero: never.
    pub joins_until: u64,
}

/// What leaves in one piece until something else is seen, in bytes of IP packet: the least that hosts have to believe of a path.
/// That is the smallest MTU of an IPv6 link (RFC 8200 section 5). For IPv4 it is what Linux takes for the smallest
/// that a router may tell of (`net.ipv4.route.min_pmtu`, 552 by default).
#[inline(always)]
pub(crate) const fn least_mtu(is_v4: bool) -> u16 {
    if is_v4 { 552 } else { 1280 }
}

impl Flow {
    /// Whether the translation of the noted packet would still show what the server does: it may be late, but not by a whole lease.
    #[inline(always)]
    pub(crate) fn awaits_noted(&self, now: u64, terms: &LeaseTerms) -> bool {
        self.noted_until != 0 && now < self.noted_until.saturating_add(terms.lease)
    }

    /// The server sent a packet of this many bytes in one piece. While it is not too long ago that it sent a longer one, that one counts.
    #[inline(always)]
    pub(crate) fn sent_whole(&mut self, length: u16, now: u64, terms: &LeaseTerms) {
        let length = length.max(least_mtu(self.out_destination.is_v4())).min(self.link_mtu);
        if length >= self.out_mtu || now >= self.out_mtu_until {
            self.out_mtu = length;
            if now >= self.out_mtu_until {
                self.longer_at = now;
            }
            self.out_mtu_until = now.wrapping_add(terms.lease.saturating_sub(terms.heartbeat));
        }
    }

    /// The kernel's routing says what the path takes. That counts only where nothing was seen of it since the flow asked.
    #[inline(always)]
    pub(crate) fn told_by_routing(&mut self, told: &PathMtu, now: u64, terms: &LeaseTerms) {
        let until = told.asked_at.wrapping_add(terms.lease.saturating_sub(terms.heartbeat));
        if told.asked_at.wrapping_add(terms.heartbeat) == self.longer_at && now < until {
            self.out_mtu = self.link_mtu.min(told.mtu.min(u32::from(u16::MAX)) as u16);
            self.out_mtu_until = until;
        }
    }

    /// The server's packet left in fragments, of which the first has this many bytes: as many fit, and hardly more.
    #[inline(always)]
    pub(crate) fn sent_cut(&mut self, length: u16, now: u64, terms: &LeaseTerms) {
        self.out_mtu = length;
        self.out_mtu_until = now.wrapping_add(terms.lease.saturating_sub(terms.heartbeat));
        self.longer_at = now.wrapping_add(terms.lease);
    }

    /// A router says that packets of more than this many bytes do not get through. Anyone can say so, so the server is asked soon.
    #[inline(always)]
    pub(crate) fn told_too_big(&mut self, length: u16, now: u64, terms: &LeaseTerms) {
        let length = length.max(least_mtu(self.out_destination.is_v4()));
        if length < self.out_mtu {
            self.out_mtu = length;
            self.out_mtu_until = now.wrapping_add(terms.lease.saturating_sub(terms.heartbeat));
            self.longer_at = now.wrapping_add(terms.heartbeat);
        }
    }
}

impl FlowKey {
    /// The same key with another channel number.
    #[inline(always)]
    #[must_use]
    pub const fn with_channel(self, channel: Be16) -> Self {
        Self { channel, ..self }
    }
}

const _: () = assert!(size_of::<FlowKey>() == 40 && size_of::<Flow>() == 232);
