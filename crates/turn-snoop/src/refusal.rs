use std::fmt;

use turn_wire::stun;

macro_rules! refusals {
    ($($(#[doc = $doc:expr])+ $variant:ident => $name:literal,)+) => {
        /// Why a message, or a part of what it says, was not learned from.
        ///
        /// The list only grows at its end.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Refusal {
            /// Every refusal, in the order of the enumeration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in logs and metrics.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

refusals! {
    /// Shorter than a STUN header, or the top bits are those of another protocol (RFC 8489 section 5).
    NotStun => "not_stun",
    /// No magic cookie (RFC 8489 section 5).
    NoMagicCookie => "no_magic_cookie",
    /// The declared length is not that of the datagram, or not a multiple of four (RFC 8489 section 5).
    BadLength => "bad_length",
    /// An attribute reaches beyond the message, or follows FINGERPRINT (RFC 8489 section 14).
    BadAttributes => "bad_attributes",
    /// FINGERPRINT is not that of the message (RFC 8489 section 14.7).
    BadFingerprint => "bad_fingerprint",
    /// An indication: it asks for nothing and is never authenticated (RFC 8656 section 5).
    Indication => "indication",
    /// A response that enters the host: only the server's own are believed, and those leave.
    ResponseEntering => "response_entering",
    /// A request that leaves the host.
    RequestLeaving => "request_leaving",
    /// A method that tells nothing about allocations.
    UnusedMethod => "unused_method",
    /// An attribute that must be there is not.
    MissingAttribute => "missing_attribute",
    /// An attribute is there twice, and servers differ in which one they use (RFC 8489 section 14).
    DuplicateAttribute => "duplicate_attribute",
    /// An attribute's value is not what its type allows.
    BadAttributeValue => "bad_attribute_value",
    /// A comprehension-required attribute whose meaning is not known here (RFC 8489 section 14).
    UnknownRequiredAttribute => "unknown_required_attribute",
    /// A channel number whose top bits are not 01 (RFC 8656 section 12).
    ChannelNumberOutOfRange => "channel_number_out_of_range",
    /// No allocation is known on this 5-tuple.
    NoAllocation => "no_allocation",
    /// The allocation is mobile and left to the server (RFC 8016).
    MobileAllocation => "mobile_allocation",
    /// Too many unanswered requests on this 5-tuple.
    TooManyPending => "too_many_pending",
    /// Too many transactions within a minute; for the next one, nothing is learned on this 5-tuple.
    TooManyTransactions => "too_many_transactions",
    /// The transaction id has been used for a request with other content.
    ContradictedTransaction => "contradicted_transaction",
    /// The transaction id stands for more than one request, or for one that could not be read.
    PoisonedTransaction => "poisoned_transaction",
    /// A response to a request that was not seen.
    UnknownTransaction => "unknown_transaction",
    /// A response in a transaction that has had one.
    CompletedTransaction => "completed_transaction",
    /// A response so long after its request that they are not joined.
    LateResponse => "late_response",
    /// The server answered with an error; what it says about the allocation has been heeded.
    ServerRefused => "server_refused",
    /// The response comes from a port that serves as a relayed transport address: anyone may have written it.
    SourceIsRelayedAddress => "source_is_relayed_address",
    /// The announced relayed transport address is one that the server listens on.
    RelayedAddressIsListener => "relayed_address_is_listener",
    /// The announced relayed transport address is unspecified, or its port is 0.
    BadRelayedAddress => "bad_relayed_address",
    /// More relayed transport addresses than one per family (RFC 8656 section 7.2).
    TooManyRelayedAddresses => "too_many_relayed_addresses",
    /// An Allocate success with LIFETIME 0.
    NoLifetime => "no_lifetime",
    /// The client's address is of a kind that is never offloaded.
    ClientNotAllowed => "client_not_allowed",
    /// The limit of allocations is reached.
    TooManyAllocations => "too_many_allocations",
    /// The allocation has no relayed transport address of the peer's family (RFC 8656 section 12.2).
    NoRelayedAddressOfFamily => "no_relayed_address_of_family",
    /// The peer's address is of a kind that is never offloaded.
    PeerNotAllowed => "peer_not_allowed",
    /// The peer's address is one of this host, and no relayed transport address of another allocation.
    PeerIsThisHost => "peer_is_this_host",
    /// The limit of channels of one allocation is reached.
    TooManyChannels => "too_many_channels",
    /// Which of two relayed transport addresses a Refresh was about is not known (RFC 8656 section 8.2).
    AmbiguousRefresh => "ambiguous_refresh",
    /// A 437 to a Refresh with MOBILITY-TICKET is not about this 5-tuple (RFC 8016 section 3.2.2).
    TicketMismatch => "ticket_mismatch",
    /// The server was seen doing two different things, or one of two, with what would be one direction of a call.
    ContradictedCall => "contradicted_call",
    /// The limit of calls is reached that may be older than the snoop.
    TooManyCalls => "too_many_calls",
    /// The call uses another relayed transport address than its allocation has.
    OtherRelayedAddress => "other_relayed_address",
    /// The response comes from a port at which no server is thought to listen (`--listening-port`): it may be a relayed transport
    /// address, and then anyone may have written it.
    SourceIsNoListener => "source_is_no_listener",
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<stun::Error> for Refusal {
    fn from(error: stun::Error) -> Self {
        match error {
            stun::Error::TooShort | stun::Error::NotStun => Self::NotStun,
            stun::Error::MagicCookie => Self::NoMagicCookie,
            stun::Error::UnalignedLength | stun::Error::LengthMismatch => Self::BadLength,
            stun::Error::TruncatedAttribute | stun::Error::FingerprintNotLast => Self::BadAttributes,
            stun::Error::FingerprintMismatch => Self::BadFingerprint,
            stun::Error::Missing(_) => Self::MissingAttribute,
            stun::Error::Duplicate(_) => Self::DuplicateAttribute,
            stun::Error::ValueLength(_) | stun::Error::Family(_) | stun::Error::ErrorCode => {
                Self::BadAttributeValue
            }
        }
    }
}

/// One counter for each refusal.
#[derive(Debug)]
pub(crate) struct Refusals([u64; Refusal::ALL.len()]);

impl Refusals {
    pub(crate) fn new() -> Self {
        Self([0; Refusal::ALL.len()])
    }

    pub(crate) fn count(&mut self, refusal: Refusal) {
        if let Some(counter) = self.0.get_mut(refusal as usize) {
            *counter = counter.saturating_add(1);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        Refusal::ALL.iter().copied().zip(self.0)
    }
}
