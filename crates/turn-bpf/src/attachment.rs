//! Attaching the programs to interfaces. What is attached is detached when it is dropped, and by the kernel when
//! the process dies.

use aya::programs::tc::{self, SchedClassifierLinkId, TcAttachType, TcError};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, XdpMode};

use crate::control::document::Mode;
use crate::host::KernelRelease;
use crate::interfaces::Interface;
use crate::object::{EGRESS_PROGRAM, LoadError, Object};

/// Where the ingress program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WantedMode {
    /// In the driver where it can, else in the stack.
    Auto,
    /// In the driver (native XDP).
    Native,
    /// In the stack, on socket buffers (generic XDP).
    Generic,
}

/// Why an interface was not attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The ingress program was refused.
    #[error("cannot attach to {interface} in {mode} mode{}", hint(*.mode))]
    Xdp {
        /// The interface.
        interface: String,
        /// The last mode that was tried.
        mode: Mode,
        /// What the kernel said.
        #[source]
        source: ProgramError,
    },
    /// The egress program was refused.
    #[error("cannot attach to what leaves by {interface}")]
    Egress {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: ProgramError,
    },
    /// The clsact qdisc could not be added.
    #[error("cannot add the clsact qdisc to {interface}, which kernels before 6.6 need")]
    Clsact {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: TcError,
    },
    /// The object is incomplete.
    #[error(transparent)]
    Object(#[from] LoadError),
}

/// The ingress program on an interface.
#[derive(Debug)]
pub struct Ingress {
    /// Where it runs.
    pub mode: Mode,
    link: XdpLinkId,
}

/// The egress program on an interface.
#[derive(Debug)]
pub struct Egress(SchedClassifierLinkId);

/// Attaches both programs.
pub fn attach(
    object: &mut Object,
    interface: &Interface,
    wanted: WantedMode,
) -> Result<(Ingress, Egress), AttachError> {
    let modes: &[Mode] = match wanted {
        WantedMode::Auto => &[Mode::Native, Mode::Generic],
        WantedMode::Native => &[Mode::Native],
        WantedMode::Generic => &[Mode::Generic],
    };
    let ingress = attach_ingress(object, &interface.name, interface.ifindex, modes)?;
    match attach_egress(object, interface) {
        Ok(egress) => Ok((ingress, egress)),
        Err(error) => {
            let _incomplete_anyway = object.xdp()?.detach(ingress.link);
            Err(error)
        }
    }
}

/// Gives back what was attached to an interface that is gone. The kernel has detached it; what is left are descriptors.
pub fn forget(object: &mut Object, ingress: Ingress, egress: Egress) -> Result<(), LoadError> {
    let _detached_already = object.xdp()?.detach(ingress.link);
    let _detached_already = object.egress()?.detach(egress.0);
    Ok(())
}

/// Moves the ingress program from the driver to the stack. In between packets go to the server.
pub fn make_generic(
    object: &mut Object,
    name: &str,
    ifindex: u32,
    ingress: Ingress,
) -> Result<Ingress, AttachError> {
    object.xdp()?.detach(ingress.link).map_err(|source| AttachError::Xdp {
        interface: name.to_owned(),
        mode: Mode::Generic,
        source,
    })?;
    attach_ingress(object, name, ifindex, &[Mode::Generic])
}

fn attach_ingress(
    object: &mut Object,
    name: &str,
    ifindex: u32,
    modes: &[Mode],
) -> Result<Ingress, AttachError> {
    let xdp = object.xdp()?;
    let mut refusal = None;
    for mode in modes {
        let flag = match mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        match xdp.attach_to_if_index(ifindex, flag) {
            Ok(link) => return Ok(Ingress { mode: *mode, link }),
            Err(source) => {
                tracing::debug!(interface = name, %mode, error = &source as &dyn std::error::Error, "not attached");
                refusal = Some(AttachError::Xdp { interface: name.to_owned(), mode: *mode, source });
            }
        }
    }
    Err(refusal.unwrap_or(AttachError::Object(LoadError::Missing("a mode to attach in"))))
}

fn attach_egress(object: &mut Object, interface: &Interface) -> Result<Egress, AttachError> {
    let name = &interface.name;
    if KernelRelease::running().is_none_or(|kernel| kernel < KernelRelease { major: 6, minor: 6 }) {
        match tc::qdisc_add_clsact(name) {
            Ok(()) | Err(TcError::AlreadyAttached) => {}
            Err(source) => return Err(AttachError::Clsact { interface: name.clone(), source }),
        }
        // A filter outlives a process that was killed; one of ours can only be a dead daemon's, since a living one
        // holds the XDP slot. Where there is none, that is an error that says so.
        let _ = tc::qdisc_detach_program(name, TcAttachType::Egress, EGRESS_PROGRAM);
    }
    object
        .egress()?
        .attach(name, TcAttachType::Egress)
        .map(Egress)
        .map_err(|source| AttachError::Egress { interface: name.clone(), source })
}

fn hint(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "; its driver cannot, or not with this MTU or these queues: see `turn-bpf doctor`",
        Mode::Generic => "",
    }
}
