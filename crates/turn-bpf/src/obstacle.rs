//! What keeps turn-bpf's ingress program out of an interface's driver.

use std::fmt;

use crate::host::LoadedProgram;
use crate::interfaces::{AttachedMode, Interface};
use crate::xdp_features::XdpFeatures;

/// Why an interface cannot be attached to in native mode, as far as that can be told without trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// Somebody else's XDP program. An interface takes one.
    OtherProgram {
        /// The program.
        program: LoadedProgram,
        /// Where it runs.
        mode: AttachedMode,
    },
    /// The driver has no native XDP.
    NoNative {
        /// What kind of virtual device it is, if it is one.
        kind: Option<String>,
    },
    /// The driver leaves no room before a frame, so that headers cannot become longer.
    NoHeadroom {
        /// The driver.
        driver: String,
    },
}

impl Obstacle {
    /// The first there is. `driver` and `features` are the interface's, where they can be told, and `program` is the XDP
    /// program on it.
    pub fn of(
        interface: &Interface,
        program: Option<&LoadedProgram>,
        features: Option<XdpFeatures>,
        driver: Option<&str>,
    ) -> Option<Self> {
        if let Some(xdp) = interface.xdp {
            let unknown = LoadedProgram { id: xdp.program_id, name: None, holder: None };
            let program = program.cloned().unwrap_or(unknown);
            return Some(Self::OtherProgram { program, mode: xdp.mode });
        }
        if features.is_some_and(|features| !features.has_native()) {
            return Some(Self::NoNative { kind: interface.kind.clone() });
        }
        // GVE_RX_PAD is 2 bytes, fewer than the kernel's own bookkeeping takes there.
        driver.filter(|driver| *driver == "gve").map(|driver| Self::NoHeadroom { driver: driver.to_owned() })
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherProgram { program, mode } => {
                write!(f, "another XDP program is attached: {program}, {mode}")
            }
            Self::NoNative { kind: Some(kind) } => write!(f, "its driver ({kind}) has no native XDP"),
            Self::NoNative { kind: None } => f.write_str("its driver has no native XDP"),
            Self::NoHeadroom { driver } => write!(f, "its driver ({driver}) leaves no room before a frame"),
        }
    }
}
