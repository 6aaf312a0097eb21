//! A packet that this host sends: it always goes on, unchanged, and may be a witness.

use turn_wire::channel_data::{self, ChannelDataHeader};
use turn_wire::ethernet::{EthernetHeader, MacAddress, VlanTags};
use turn_wire::ip::{Ipv4Header, Ipv6Header};
use turn_wire::udp::UdpHeader;
use turn_wire::{Be16, IpAddress};

use crate::control::{self, ControlMessage};
use crate::fingerprint::fingerprint;
use crate::flow::{interface_flags, path_flags};
use crate::ingress::event;
use crate::packet::{Packet, UdpData};
use crate::{Flow, FlowKey, Flows, Frame, LeaseTerms, Reason};

/// Most datagrams of a train that are looked at: as many as a server can send in one call (`UDP_MAX_SEGMENTS`, 128 since
/// Linux 6.9 and 64 before).
pub const LONGEST_TRAIN: u32 = 128;

/// What is known of a packet beside its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// Interface that it leaves by.
    pub ifindex: u32,
    /// Sent by a process of this host, not forwarded for another.
    pub by_this_host: bool,
    /// Where the packet is a train of datagrams that the device is to cut apart (UDP segmentation offload): bytes of data
    /// in each, of which the last may have fewer. Zero where it is one datagram.
    pub segment: u16,
    /// A VLAN tag that is not part of its bytes, since the device is to add it.
    pub tag: VlanTags,
}

/// What a sent datagram means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A control message that the daemon gets a copy of.
    pub message: Option<ControlMessage>,
    /// What else it is.
    pub reason: Reason,
}

/// A packet that this host sends: a datagram, or a train of them between the same transport addresses.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    key: FlowKey,
    tags: VlanTags,
    data_at: u32,
    data_length: u16,
    /// Bytes of IP packet, where it is the first fragment of a datagram; zero where it is whole.
    fragment: u16,
    dont_fragment: bool,
    /// No flow expects its datagrams, unless as ChannelData.
    is_unexpected: bool,
}

/// The flow whose packet this host sent or relayed, as far as these first bytes of it show.
#[inline(always)]
pub(crate) fn owner<T: Flows>(flows: &T, key: FlowKey, data: &UdpData) -> Option<FlowKey> {
    let mut packet = Outgoing {
        key,
        tags: VlanTags::NONE,
        data_at: data.at as u32,
        data_length: data.length,
        fragment: 0,
        dont_fragment: false,
        is_unexpected: false,
    };
    packet.expected(flows, data).map(|(flow, _)| flow)
}

impl Outgoing {
    /// Reads the headers.
    ///
    /// # Errors
    ///
    /// [`Reason::EgressOther`] where the packet cannot mean anything.
    #[inline(always)]
    pub fn read<F: Frame>(frame: &F, sent: &Sent) -> Result<Self, Reason> {
        if !sent.by_this_host {
            return Err(Reason::EgressOther);
        }
        let Ok(packet) = Packet::read_headers::<F, true>(frame) else {
            return Err(Reason::EgressOther);
        };
        match sent.tag.around(packet.tags) {
            Some(tags) => Ok(Self {
                key: packet.key(),
                tags,
                data_at: packet.data.at as u32,
                data_length: packet.data.length,
                fragment: packet.fragment,
                dont_fragment: packet.dont_fragment,
                is_unexpected: false,
            }),
            None => Err(Reason::EgressOther),
        }
    }

    /// Its addresses, without a channel.
    #[inline(always)]
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// True where it is the first fragment of a datagram.
    #[inline(always)]
    pub(crate) fn is_fragment(&self) -> bool {
        self.fragment != 0
    }

    /// Looks at one datagram, counted from zero; none where there are not as many.
    #[inline(always)]
    pub fn look<F: Frame, T: Flows>(
        &mut self,
        frame: &F,
        flows: &T,
        terms: &LeaseTerms,
        sent: &Sent,
        number: u32,
    ) -> Option<Seen> {
        let data = self.data(frame, sent.segment, number)?;
        // What a message says is known only of a whole one.
        let message = if self.fragment == 0 { response(frame, flows, &data, &self.key) } else { None };
        let length = match self.fragment {
            0 => data.length.saturating_add(self.headers()),
            fragment => fragment,
        };
        let reason = match self.expected(flows, &data) {
            Some((flow_key, data)) => match flows.flow(&flow_key) {
                Some(mut flow) => {
                    witness(frame, flows, terms, sent, self, &flow_key, data, length, &mut flow)
                }
                None => Reason::EgressOther,
            },
            None => Reason::EgressOther,
        };
        Some(Seen { message, reason })
    }

    /// Bytes of IP and UDP header of each datagram.
    #[inline(always)]
    fn headers(&self) -> u16 {
        let ip = if self.key.source.is_v4() { Ipv4Header::LEN } else { Ipv6Header::LEN };
        ip.wrapping_add(UdpHeader::LEN) as u16
    }

    /// The data of one datagram.
    #[inline(always)]
    pub(crate) fn data<F: Frame>(&self, frame: &F, segment: u16, number: u32) -> Option<UdpData> {
        let segment = if segment == 0 { u32::from(self.data_length) } else { u32::from(segment) };
        let behind = number.wrapping_mul(segment);
        let rest = u32::from(self.data_length).checked_sub(behind)?;
        if rest == 0 && number != 0 {
            return None;
        }
        Some(UdpData::read(frame, self.data_at.wrapping_add(behind) as usize, rest.min(segment) as u16))
    }

    /// The flow whose translation a datagram could be, and where its application data lies.
    #[inline(always)]
    pub(crate) fn expected<T: Flows>(
        &mut self,
        flows: &T,
        data: &UdpData,
    ) -> Option<(FlowKey, (usize, u16))> {
        let mut key = self.key;
        let head = data.head;
        if channel_data::is_channel_number(head.number)
            && usize::from(head.length.value()).wrapping_add(ChannelDataHeader::LEN)
                <= usize::from(data.length)
        {
            key.channel = head.number;
            if let Some(flow) = flows.expected(&key) {
                return Some((flow, (data.at.wrapping_add(ChannelDataHeader::LEN), head.length.value())));
            }
            key.channel = Be16::new(0);
        }
        if self.is_unexpected {
            return None;
        }
        let data = (data.at, data.length);
        if let Some(flow) = flows.expected(&key) {
            return Some((flow, data));
        }
        key.source = IpAddress::ANY;
        if let Some(flow) = flows.expected(&key) {
            return Some((flow, data));
        }
        key.source_port = Be16::new(0);
        let flow = flows.expected(&key);
        self.is_unexpected = flow.is_none();
        flow.map(|flow| (flow, data))
    }
}

/// The responses of a server whose meaning the daemon works out.
#[inline(always)]
fn response<F: Frame, T: Flows>(
    frame: &F,
    flows: &T,
    data: &UdpData,
    key: &FlowKey,
) -> Option<ControlMessage> {
    const ALLOCATE_SUCCESS: u16 = 0x0103;
    const REFRESH_SUCCESS: u16 = 0x0104;
    const REFRESH_ERROR: u16 = 0x0114;
    const CREATE_PERMISSION_ERROR: u16 = 0x0118;
    const CHANNEL_BIND_SUCCESS: u16 = 0x0109;
    const CHANNEL_BIND_ERROR: u16 = 0x0119;

    let stun_type = data.stun_type(frame)?;
    let client = FlowKey {
        source: key.destination,
        destination: key.source,
        source_port: key.destination_port,
        destination_port: key.source_port,
        ..*key
    };
    match stun_type {
        // The client's next request may overtake the daemon, so its 5-tuple is remembered here. A channel binding may be
        // the first that is seen of an allocation that is older than turn-bpf. What comes from where no server listens the daemon has to
        // hear of, but a client that has the server send such things is to displace nobody.
        ALLOCATE_SUCCESS | CHANNEL_BIND_SUCCESS => {
            if u32::from(key.source_port.value()) < flows.listening_below() {
                flows.add_client(&client);
            }
        }
        REFRESH_SUCCESS | REFRESH_ERROR | CREATE_PERMISSION_ERROR | CHANNEL_BIND_ERROR => {
            if !flows.is_client(&client) {
                return None;
            }
        }
        _ => return None,
    }
    let length = usize::from(data.length);
    (length <= control::MAX_MESSAGE).then_some(ControlMessage {
        at: data.at,
        length,
        kind: control::kind::RESPONSE,
    })
}

/// Grants or renews the lease of a flow whose translation the server was seen to do.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one call, inlined: a struct would only rename the arguments")]
fn witness<F: Frame, T: Flows>(
    frame: &F,
    flows: &T,
    terms: &LeaseTerms,
    sent: &Sent,
    outgoing: &Outgoing,
    flow_key: &FlowKey,
    (data_at, data_length): (usize, u16),
    length: u16,
    flow: &mut Flow,
) -> Reason {
    let now = flows.now();
    let is_fragment = outgoing.fragment != 0;
    if is_fragment {
        flow.sent_cut(length, now, terms);
    }
    let difference = match fingerprint(frame, data_at, data_length) {
        Some(fingerprint) if flow.awaits_noted(now, terms) => flow.noted_fingerprint ^ fingerprint,
        _ => ANOTHER,
    };
    if difference != NOTED && difference != CONFIRMED {
        return if is_fragment { Reason::EgressFragment } else { Reason::OtherPayload };
    }
    flow.noted_until = 0;
    let Some(path) = Path::of(frame, flows, sent, outgoing, difference, flow, now) else {
        return Reason::EgressOther;
    };
    if is_fragment {
        // The server did the translation. Whether whole packets bear the don't-fragment flag this does not show, so it arms nothing.
        if now < flow.lease_until && path.route == Route::of(flow) {
            flow.lease_until = now.wrapping_add(terms.lease);
        }
        return Reason::EgressFragment;
    }
    flow.link_mtu = path.link_mtu;
    if now >= flow.lease_until {
        // What was known was of another way.
        flow.out_mtu_until = 0;
    }
    flow.sent_whole(length, now, terms);
    flow.path_flags = path.flags;
    if now < flow.lease_until {
        // Another CPU may be relaying by the old path, so the lease ends first. The next witness brings the
        // new path.
        if path.route != Route::of(flow) {
            flow.lease_until = 0;
            flows.report(&event(control::kind::PATH_CHANGED, now, flow_key, flow));
            return Reason::PathChanged;
        }
        flow.out_tags = outgoing.tags;
        flow.lease_until = now.wrapping_add(terms.lease);
        return Reason::Witness;
    }
    // Where not even the sender's port was known, the packet may be another client's with the same payload. Two in a
    // row that are relayed from one address are no chance.
    if flow.out_source_port != path.route.out_source_port {
        flow.out_source = path.route.out_source;
        flow.out_source_port = path.route.out_source_port;
        return Reason::Candidate;
    }
    flow.out_tags = outgoing.tags;
    path.route.give(flow);
    flow.armed = flow.armed.wrapping_add(1);
    flow.heartbeat_at = now.wrapping_add(terms.heartbeat);
    flows.report(&event(control::kind::ARMED, now, flow_key, flow));
    // Behind a call of the kernel, so that the compiler has written all of the path before.
    flow.lease_until = now.wrapping_add(terms.lease);
    Reason::Witness
}

/// How the fingerprint of a packet that leaves differs from that of the noted one, where they are the same packet.
const NOTED: u64 = 0;
/// The same, where besides all tags of the noted one were seen ([`crate::unseen_tag`]).
const CONFIRMED: u64 = u64::MAX;
/// Neither.
const ANOTHER: u64 = 1;

/// The way that the server's own packet takes: what the kernel's routing, policy rules and neighbour table chose,
/// together with the way by which the noted packet came.
struct Path {
    link_mtu: u16,
    flags: u32,
    route: Route,
}

/// What an interface can do is a bit of the same place in its flags and in those of a path that leaves by it.
const OF_THE_WAY_OUT: u32 =
    interface_flags::TRANSMITS | interface_flags::TRANSMITS_PARTS | interface_flags::ONLY_REDIRECT;
const _: () = assert!(
    interface_flags::TRANSMITS == path_flags::REDIRECT
        && interface_flags::TRANSMITS_PARTS == path_flags::REDIRECT_PARTS
        && interface_flags::ONLY_REDIRECT == path_flags::ONLY_REDIRECT
);

/// The part of a path that is never replaced while a lease runs, since a frame must not be sent with half of it.
#[derive(PartialEq, Eq)]
struct Route {
    out_source: IpAddress,
    out_source_port: Be16,
    out_mac_destination: MacAddress,
    out_mac_source: MacAddress,
    out_ifindex: u32,
    in_ifindex: u32,
    in_mac: MacAddress,
    in_tags: VlanTags,
    /// Without priorities: a frame's tags are one word, which may be replaced while a lease runs.
    out_tags: VlanTags,
}

impl Path {
    /// None where the packet leaves by an interface that was not named or that nobody looks after, or where it is not known by what tags the noted one came.
    #[inline(always)]
    fn of<F: Frame, T: Flows>(
        frame: &F,
        flows: &T,
        sent: &Sent,
        outgoing: &Outgoing,
        difference: u64,
        flow: &Flow,
        now: u64,
    ) -> Option<Self> {
        let way_in = flows.interface(flow.noted_ifindex)?;
        let way_out = flows.interface(sent.ifindex)?;
        if now >= way_out.looked_after_until {
            return None;
        }
        let (is_generic, is_tc) =
            (way_in.flags & interface_flags::GENERIC, way_in.flags & interface_flags::TC);
        if (is_generic != 0) != (difference == CONFIRMED) {
            return None;
        }
        let in_or_out = [flow.noted_tags, outgoing.tags];
        if is_tc != 0 && in_or_out.iter().any(|tags| tags.outer().is_some()) {
            return None;
        }
        let ethernet = frame.get::<EthernetHeader>(0)?;
        // Without branches, each of which the verifier would follow to the end.
        let takes_all = (is_generic / interface_flags::GENERIC) | (is_tc / interface_flags::TC);
        let takes = takes_all.wrapping_mul(path_flags::REDIRECT | path_flags::REDIRECT_PARTS);
        let dont_fragment = u32::from(outgoing.dont_fragment).wrapping_mul(path_flags::DONT_FRAGMENT);
        let flags = dont_fragment | takes | way_out.flags & OF_THE_WAY_OUT;
        // The kernel has room for one tag beyond the MTU of an interface that frames are redirected to (`xdp_ok_fwd_dev`).
        let mtu = way_out.mtu.min(u32::from(u16::MAX)) as u16;
        Some(Self {
            link_mtu: mtu.saturating_sub(outgoing.tags.length_of_outer() as u16),
            flags,
            route: Route {
                out_source: outgoing.key.source,
                out_source_port: outgoing.key.source_port,
                out_mac_destination: ethernet.destination,
                out_mac_source: ethernet.source,
                out_ifindex: sent.ifindex,
                in_ifindex: flow.noted_ifindex,
                in_mac: flow.noted_mac,
                in_tags: flow.noted_tags,
                out_tags: outgoing.tags.without_priority(),
            },
        })
    }
}

impl Route {
    /// The route that a flow has.
    #[inline(always)]
    fn of(flow: &Flow) -> Self {
        Self {
            out_source: flow.out_source,
            out_source_port: flow.out_source_port,
            out_mac_destination: flow.out_mac_destination,
            out_mac_source: flow.out_mac_source,
            out_ifindex: flow.out_ifindex,
            in_ifindex: flow.in_ifindex,
            in_mac: flow.in_mac,
            in_tags: flow.in_tags,
            out_tags: flow.out_tags.without_priority(),
        }
    }

    /// Gives the route to a flow whose lease is off.
    #[inline(always)]
    fn give(self, flow: &mut Flow) {
        flow.out_source = self.out_source;
        flow.out_source_port = self.out_source_port;
        flow.out_mac_destination = self.out_mac_destination;
        flow.out_mac_source = self.out_mac_source;
        flow.out_ifindex = self.out_ifindex;
        flow.in_ifindex = self.in_ifindex;
        flow.in_mac = self.in_mac;
        flow.in_tags = self.in_tags;
    }
}
