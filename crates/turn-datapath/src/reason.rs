//! Why a packet took the way it took.

/// Defines the enum, its labels and its explanations in one list, so that they cannot drift apart.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $number:literal, $label:literal;)+) => {
        /// Why a packet took the way it took. Numbers are only ever appended: they index the per-CPU counters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $name = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: [Reason; Reason::COUNT] = [$(Reason::$name,)+];
            /// How many reasons there are.
            pub const COUNT: usize = [$($number,)+].len();
            /// Room for reasons that are yet to come, so that counters outlast the version of turn-bpf that began them.
            pub const ROOM: u32 = 256;

            /// The name in JSON documents and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Reason::$name => $label,)+ }
            }

            /// One sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Reason::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// Relayed in the kernel, by the driver that it came in by.
    Relayed = 0, "relayed";
    /// Relayed in the kernel, by redirect.
    Redirected = 1, "redirected";
    /// Not IPv4 or IPv6.
    NotIp = 2, "not_ip";
    /// Carries more than two VLAN tags.
    VlanTagged = 3, "vlan_tagged";
    /// Not UDP, or behind IPv6 extension headers.
    NotUdp = 4, "not_udp";
    /// Carries IPv4 options.
    Ipv4Options = 5, "ipv4_options";
    /// A fragment.
    Fragment = 6, "fragment";
    /// Its lengths contradict each other, its headers are not in one piece, or its IPv4 header checksum is wrong.
    Malformed = 7, "malformed";
    /// Belongs to no channel binding that is known.
    NoFlow = 8, "no_flow";
    /// A STUN request of a known client, copied for the daemon.
    Control = 9, "control";
    /// A known flow that the server has not been seen relaying lately.
    NoLease = 10, "no_lease";
    /// The one packet per heartbeat that shows whether the server still relays the flow.
    Heartbeat = 11, "heartbeat";
    /// Came by another interface, by other VLAN tags or to another MAC address than the packets that the server answered.
    OtherPath = 12, "other_path";
    /// ChannelData whose length does not fit the datagram.
    ChannelDataLength = 13, "channel_data_length";
    /// Its TTL or hop limit is used up.
    HopLimit = 14, "hop_limit";
    /// Has no UDP checksum, and the other address family must have one.
    NoChecksum = 15, "no_checksum";
    /// Its UDP checksum was left to the sender's hardware, which is not there.
    PartialChecksum = 16, "partial_checksum";
    /// Would exceed the MTU of the way out.
    TooBig = 17, "too_big";
    /// The driver gave no room for the longer headers.
    NoHeadroom = 18, "no_headroom";
    /// The interface of the way out cannot transmit frames that are redirected to it, or not those in several parts.
    CannotRedirect = 19, "cannot_redirect";
    /// Sent by this host and of no interest.
    EgressOther = 20, "egress_other";
    /// A STUN response of the server, copied for the daemon.
    EgressControl = 21, "egress_control";
    /// The server did a translation itself, and that granted a lease.
    Witness = 22, "witness";
    /// The server sent on a known flow, but not the packet that was noted.
    OtherPayload = 23, "other_payload";
    /// The server's packet left another way than the lease says, and that ended the lease.
    PathChanged = 24, "path_changed";
    /// A train of datagrams in one buffer (UDP segmentation offload), each of which is counted besides.
    EgressTrain = 25, "egress_train";
    /// A control message, or a report on a flow, that found the ring buffer full.
    ControlLost = 26, "control_lost";
    /// A control message longer than any that the server's handshakes need.
    ControlTooLong = 27, "control_too_long";
    /// Relayed in the kernel, but the driver that was to transmit it threw it away.
    TransmitFailed = 28, "transmit_failed";
    /// Came behind a packet that went to the server and has not come out yet, and must not overtake it.
    Behind = 29, "behind";
    /// The server did a translation itself, from an address that has to be seen once more before it is believed.
    Candidate = 30, "candidate";
    /// Came while its flow carried more than may be relayed in the kernel, so that the server sees all of it.
    OverRate = 31, "over_rate";
    /// Longer than any packet that the server was lately seen to send in one piece.
    LongerThanSeen = 32, "longer_than_seen";
    /// The server sent on a known flow, but in fragments, which shows how much the way out takes.
    EgressFragment = 33, "egress_fragment";
    /// An ICMP error that says how much the way out of a known flow takes.
    PathMtu = 34, "path_mtu";
    /// Several datagrams that came in merged (UDP receive offload), which only the stack can take apart.
    Train = 35, "train";
    /// Of a known flow in generic mode, with a VLAN tag that the device took off, so that only the server can relay it.
    UnseenTag = 36, "unseen_tag";
    /// Came in in generic mode with a UDP checksum that is not its own, as several datagrams have that were merged before.
    UnseenTrain = 37, "unseen_train";
}

impl Reason {
    /// True where the packet was relayed in the kernel.
    pub const fn is_relayed(self) -> bool {
        matches!(self, Reason::Relayed | Reason::Redirected)
    }

    /// True where the packet came in and went to the server although its channel binding is known.
    pub const fn is_spilled(self) -> bool {
        matches!(
            self,
            Reason::NoLease
                | Reason::Heartbeat
                | Reason::OtherPath
                | Reason::ChannelDataLength
                | Reason::HopLimit
                | Reason::NoChecksum
                | Reason::PartialChecksum
                | Reason::TooBig
                | Reason::NoHeadroom
                | Reason::CannotRedirect
                | Reason::Behind
                | Reason::OverRate
                | Reason::LongerThanSeen
        )
    }

    /// True where the packet came in and concerned no known channel binding.
    pub const fn is_passed(self) -> bool {
        matches!(
            self,
            Reason::NotIp
                | Reason::VlanTagged
                | Reason::NotUdp
                | Reason::Ipv4Options
                | Reason::Fragment
                | Reason::Malformed
                | Reason::NoFlow
                | Reason::Control
                | Reason::ControlTooLong
                | Reason::PathMtu
                | Reason::Train
                | Reason::UnseenTrain
        )
    }
}
