//! Why a session is not relayed in the kernel.

/// Defines the enum, its labels and its explanations in one list, so that they cannot drift apart.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident => $label:literal,)+) => {
        /// Why a direction of a session is not relayed in the kernel at this moment.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum SessionReason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl SessionReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in documents and metrics, which does not change.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)+ }
            }

            /// One sentence for people.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

reasons! {
    /// An operator paused it; `turn-bpf resume` ends that.
    Paused => "paused",
    /// It carries more than --max-rate, so that the server sees all of it.
    OverRate => "over_rate",
    /// The table of flows is full; --max-flows makes it larger.
    TableFull => "table_full",
    /// Another session has the same packets on the wire, so that neither can be told from the other.
    Ambiguous => "ambiguous",
    /// The call is older than turn-bpf, and the server has not been seen relaying it yet.
    RelayedAddressUnknown => "relayed_address_unknown",
    /// Its flow is not in the kernel's table at this moment.
    NotInstalled => "not_installed",
    /// Its lease ran out, since the server was not seen relaying it any longer, or by another way.
    LeaseOver => "lease_over",
    /// It has traffic, but the server has not been seen relaying it.
    NoWitness => "no_witness",
    /// It has had no traffic yet.
    NoTraffic => "no_traffic",
}

impl SessionReason {
    /// The reason with this name.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.label() == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_name_and_a_sentence() {
        for reason in SessionReason::ALL {
            assert_eq!(SessionReason::of_label(reason.label()), Some(*reason));
            assert!(reason.explanation().ends_with('.'), "{reason:?}");
        }
    }
}
