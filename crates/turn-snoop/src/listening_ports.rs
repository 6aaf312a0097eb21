use std::collections::BTreeSet;

/// From here on Linux gives ports to whoever names none (`net.ipv4.ip_local_port_range`), and servers to relayed transport addresses (RFC
/// 8656 section 7.2 recommends those from 49152 on).
const FIRST_DYNAMIC: u16 = 32_768;

/// The UDP ports at which servers listen, as far as is known.
///
/// A client can have the server send any bytes from its relayed transport address to anyone, a success response among them. Where
/// its allocation is known, that address is; but one over TCP or TLS is not seen. So a response is believed from ports alone that no
/// relayed transport address is likely to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListeningPorts {
    /// All that are not given to whoever asks for one.
    #[default]
    BelowDynamic,
    /// These, and no others.
    These(BTreeSet<u16>),
}

impl ListeningPorts {
    /// Whether a server may listen at this port.
    pub fn may_be(&self, port: u16) -> bool {
        match self {
            Self::BelowDynamic => port < FIRST_DYNAMIC,
            Self::These(ports) => ports.contains(&port),
        }
    }

    /// The first port from which on none may be.
    pub fn end(&self) -> u32 {
        match self {
            Self::BelowDynamic => FIRST_DYNAMIC.into(),
            Self::These(ports) => ports.last().map_or(0, |last| u32::from(*last) + 1),
        }
    }
}
