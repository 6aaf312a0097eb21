//! Attaching the programs to interfaces. What is attached is detached when it is dropped, and by the kernel when
//! the process dies.

use aya::programs::tc::{self, SchedClassifierLinkId, TcAttachType, TcError};
use aya::programs::xdp::XdpLinkId;
use aya::programs::{ProgramError, XdpMode};
use rustix::io::Errno;

use crate::control::document::Mode;
use crate::host::{self, FIRST_WITH_TCX, KernelRelease};
use crate::interfaces::Interface;
use crate::object::{EGRESS_PROGRAM, INGRESS_PROGRAM, LoadError, Object, UNSEEN_TAG_PROGRAM};
use crate::obstacle::Obstacle;

/// Where the ingress program is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WantedMode {
    /// In the driver where it can, else at TC, else as generic XDP.
    Auto,
    /// In the driver (native XDP).
    Native,
    /// In the stack, at TC, whatever the driver can do and beside any XDP program.
    Tc,
    /// In the stack, as an XDP program that runs on socket buffers (generic XDP).
    Generic,
}

/// Why an interface was not attached to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// The ingress program was refused.
    #[error("cannot attach to {interface} in {mode} mode{}", hint(*.mode))]
    Ingress {
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
    /// Why not in the driver, unless that was not wanted.
    pub reason: Option<String>,
    link: Link,
}

#[derive(Debug)]
enum Link {
    Native(XdpLinkId),
    Tc(SchedClassifierLinkId),
    /// With the program that confirms what XDP saw of a packet.
    Generic(XdpLinkId, SchedClassifierLinkId),
}

impl Link {
    fn detach(self, object: &mut Object) -> Result<Result<(), ProgramError>, LoadError> {
        Ok(match self {
            Self::Native(link) => object.xdp()?.detach(link),
            Self::Tc(link) => object.ingress()?.detach(link),
            Self::Generic(link, confirming) => {
                object.generic_xdp()?.detach(link).and(object.unseen_tag()?.detach(confirming))
            }
        })
    }
}

/// The egress program on an interface.
#[derive(Debug)]
pub struct Egress(SchedClassifierLinkId);

/// Attaches both programs. Where native mode is wanted but not demanded, an obstacle rules it out.
pub fn attach(
    object: &mut Object,
    interface: &Interface,
    wanted: WantedMode,
    obstacle: Option<&Obstacle>,
) -> Result<(Ingress, Egress), AttachError> {
    let (modes, reason): (&[Mode], _) = match (wanted, obstacle) {
        (WantedMode::Auto, None) => (&[Mode::Native, Mode::Tc, Mode::Generic], None),
        (WantedMode::Auto, Some(obstacle)) => (&[Mode::Tc, Mode::Generic], Some(obstacle.to_string())),
        (WantedMode::Native, _) => (&[Mode::Native], None),
        (WantedMode::Tc, _) => (&[Mode::Tc], None),
        (WantedMode::Generic, _) => (&[Mode::Generic], None),
    };
    prepare_tc(&interface.name)?;
    let ingress = attach_ingress(object, &interface.name, interface.ifindex, modes, reason)?;
    match object.egress()?.attach(&interface.name, TcAttachType::Egress) {
        Ok(link) => Ok((ingress, Egress(link))),
        Err(source) => {
            let _incomplete_anyway = ingress.link.detach(object)?;
            Err(AttachError::Egress { interface: interface.name.clone(), source })
        }
    }
}

/// Gives back what was attached to an interface that is gone. The kernel has detached it; what is left are descriptors.
pub fn forget(object: &mut Object, ingress: Ingress, egress: Egress) -> Result<(), LoadError> {
    let _detached_already = ingress.link.detach(object)?;
    let _detached_already = object.egress()?.detach(egress.0);
    Ok(())
}

/// Moves the ingress program from the driver to the stack. In between packets go to the server.
pub fn leave_driver(
    object: &mut Object,
    name: &str,
    ifindex: u32,
    ingress: Ingress,
    reason: String,
) -> Result<Ingress, AttachError> {
    let mode = ingress.mode;
    ingress.link.detach(object)?.map_err(|source| AttachError::Ingress {
        interface: name.to_owned(),
        mode,
        source,
    })?;
    attach_ingress(object, name, ifindex, &[Mode::Tc, Mode::Generic], Some(reason))
}

fn attach_ingress(
    object: &mut Object,
    name: &str,
    ifindex: u32,
    modes: &[Mode],
    mut reason: Option<String>,
) -> Result<Ingress, AttachError> {
    let mut refusal = None;
    for mode in modes.iter().copied() {
        let attached = match mode {
            Mode::Native => object.xdp()?.attach_to_if_index(ifindex, XdpMode::Driver).map(Link::Native),
            Mode::Generic => attach_generic(object, name, ifindex)?,
            Mode::Tc => object.ingress()?.attach(name, TcAttachType::Ingress).map(Link::Tc),
        };
        match attached {
            Ok(link) => return Ok(Ingress { mode, reason, link }),
            Err(source) => {
                tracing::debug!(interface = name, %mode, error = &source as &dyn std::error::Error, "not attached");
                if mode == Mode::Native {
                    reason = Some(format!("its driver refuses: {}", innermost(&source)));
                }
                refusal = Some(AttachError::Ingress { interface: name.to_owned(), mode, source });
            }
        }
    }
    Err(refusal.unwrap_or(AttachError::Object(LoadError::Missing("a mode to attach in"))))
}

fn attach_generic(
    object: &mut Object,
    name: &str,
    ifindex: u32,
) -> Result<Result<Link, ProgramError>, LoadError> {
    let confirming = match object.unseen_tag()?.attach(name, TcAttachType::Ingress) {
        Ok(link) => link,
        Err(error) => return Ok(Err(error)),
    };
    match object.generic_xdp()?.attach_to_if_index(ifindex, XdpMode::Skb) {
        Ok(link) => Ok(Ok(Link::Generic(link, confirming))),
        Err(error) => {
            let _incomplete_anyway = object.unseen_tag()?.detach(confirming);
            Ok(Err(error))
        }
    }
}

/// What the kernel itself said.
fn innermost(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Before 6.6 all TC programs are filters of the clsact qdisc.
pub fn prepare_tc(name: &str) -> Result<(), AttachError> {
    if KernelRelease::running().is_some_and(|kernel| kernel >= FIRST_WITH_TCX) {
        return Ok(());
    }
    match tc::qdisc_add_clsact(name) {
        Ok(()) | Err(TcError::AlreadyAttached) => {}
        // It stays when its filters go, and others use it, too.
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(Errno::EXIST.raw_os_error()) => {}
        Err(source) => return Err(AttachError::Clsact { interface: name.to_owned(), source }),
    }
    // A filter outlives a process that was killed. As long as no other process holds such a program, one that is there is a
    // dead daemon's. Where there is none, that is an error that says so.
    for (attach_type, program) in [
        (TcAttachType::Ingress, INGRESS_PROGRAM),
        (TcAttachType::Ingress, UNSEEN_TAG_PROGRAM),
        (TcAttachType::Egress, EGRESS_PROGRAM),
    ] {
        if !host::is_held_by_another(program) {
            let _ = tc::qdisc_detach_program(name, attach_type, program);
        }
    }
    Ok(())
}

fn hint(mode: Mode) -> &'static str {
    match mode {
        Mode::Native => "; its driver cannot, or not with this MTU or these queues: see `turn-bpf doctor`",
        Mode::Tc | Mode::Generic => "",
    }
}
