//! Attaching the programs to interfaces. What is attached is detached when it is dropped, and by the kernel when
//! the process dies; but what is pinned stays, and is taken over by the next daemon.

use std::path::Path;
use std::time::{Duration, Instant};

use aya::pin::PinError;
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::tc::{self, SchedClassifierLink, TcAttachType, TcError};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, SchedClassifier, Xdp, XdpMode};
use rustix::io::Errno;

use crate::control::document::Mode;
use crate::host::{self, FIRST_WITH_TCX, KernelRelease};
use crate::interfaces::Interface;
use crate::object::{EGRESS_PROGRAM, INGRESS_PROGRAM, LoadError, Object, UNSEEN_TAG_PROGRAM};
use crate::obstacle::Obstacle;
use crate::pins::{Hook, Pins};

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

impl WantedMode {
    /// The modes that are wanted, the best one first.
    pub fn modes(self) -> &'static [Mode] {
        match self {
            Self::Auto => &[Mode::Native, Mode::Tc, Mode::Generic],
            Self::Native => &[Mode::Native],
            Self::Tc => &[Mode::Tc],
            Self::Generic => &[Mode::Generic],
        }
    }
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
        source: HookError,
    },
    /// The egress program was refused.
    #[error("cannot attach to what leaves by {interface}")]
    Egress {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: HookError,
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

/// Why one program was not attached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// The kernel refused.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It is attached without a link, which alone can be handed on.
    #[error("it is attached without a link, so that it cannot be kept; run without --keep")]
    NoLink(#[from] LinkError),
    /// The link was not pinned.
    #[error("cannot pin it")]
    Pin(#[from] PinError),
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
    Native(Held),
    Tc(Held),
    /// With the program that confirms what XDP saw of a packet.
    Generic(Held, Held),
}

/// One attached program.
#[derive(Debug)]
enum Held {
    Xdp { _until_dropped: XdpLink },
    Tc { _until_dropped: SchedClassifierLink },
    Pinned(PinnedLink),
}

impl Held {
    fn detach(self) {
        if let Self::Pinned(link) = self {
            // Where the file is gone, closing the link is enough.
            let _gone_already = link.unpin();
        }
    }
}

impl Link {
    fn detach(self) {
        match self {
            Self::Native(held) | Self::Tc(held) => held.detach(),
            Self::Generic(held, confirming) => {
                held.detach();
                confirming.detach();
            }
        }
    }
}

/// The egress program on an interface.
#[derive(Debug)]
pub struct Egress(Held);

/// Attaches both programs. Where native mode is wanted but not demanded, an obstacle rules it out. With pins, the programs that an earlier
/// daemon left are replaced, each at once, in the mode in which they run if that is a wanted one.
pub fn attach(
    object: &mut Object,
    interface: &Interface,
    wanted: WantedMode,
    obstacle: Option<&Obstacle>,
    pins: Option<&Pins>,
) -> Result<(Ingress, Egress), AttachError> {
    let mut modes = wanted.modes().to_vec();
    let obstacle = obstacle.filter(|_| wanted == WantedMode::Auto);
    modes.retain(|mode| *mode != Mode::Native || obstacle.is_none());
    let mut reason = obstacle.map(Obstacle::to_string);
    let mut patience = Duration::ZERO;
    if let Some((pins, kept)) = pins.and_then(|pins| Some((pins, pins.mode(interface.ifindex)?))) {
        if wanted == WantedMode::Auto {
            if kept != Mode::Native && reason.is_none() {
                reason = Some(
                    "the turn-bpf before found no better one (turn-bpf detach has it tried again)".into(),
                );
            }
            modes.retain(|mode| *mode != kept);
            modes.insert(0, kept);
        } else if !modes.contains(&kept) {
            // In between packets go to the server.
            pins.detach_ingress(interface.ifindex);
            patience = UNTIL_FREED;
        }
    }
    prepare_tc(&interface.name)?;
    let place = Place { name: &interface.name, ifindex: interface.ifindex, pins, patience };
    let ingress = attach_ingress(object, place, &modes, reason)?;
    match place.attach_tc(object.egress()?, TcAttachType::Egress, Hook::Egress) {
        Ok(link) => Ok((ingress, Egress(link))),
        Err(source) => {
            ingress.link.detach();
            Err(AttachError::Egress { interface: interface.name.clone(), source })
        }
    }
}

/// Gives back what was attached to an interface that is gone. The kernel has detached it; what is left are descriptors.
pub fn forget(ingress: Ingress, egress: Egress) {
    ingress.link.detach();
    egress.0.detach();
}

/// Moves the ingress program from the driver to the stack. In between packets go to the server.
pub fn leave_driver(
    object: &mut Object,
    name: &str,
    ifindex: u32,
    ingress: Ingress,
    reason: String,
    pins: Option<&Pins>,
) -> Result<Ingress, AttachError> {
    ingress.link.detach();
    let place = Place { name, ifindex, pins, patience: UNTIL_FREED };
    attach_ingress(object, place, &[Mode::Tc, Mode::Generic], Some(reason))
}

/// The kernel detaches what was pinned some time after its file is gone, by a work queue.
const UNTIL_FREED: Duration = Duration::from_secs(2);

/// An interface, and where its links are pinned.
#[derive(Clone, Copy)]
struct Place<'a> {
    name: &'a str,
    ifindex: u32,
    pins: Option<&'a Pins>,
    /// For how long the place of an XDP program may be taken by one that was just detached.
    patience: Duration,
}

impl Place<'_> {
    fn attach_xdp(&self, program: &mut Xdp, mode: XdpMode, hook: Hook) -> Result<Held, HookError> {
        let replace = |program: &mut Xdp, link: FdLink| {
            let id = program.attach_to_link(link.try_into()?)?;
            Ok(program.take_link(id)?)
        };
        let attach = |program: &mut Xdp| {
            let began = Instant::now();
            let id = loop {
                match program.attach_to_if_index(self.ifindex, mode) {
                    Err(error) if is_taken(&error) && began.elapsed() < self.patience => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    attached => break attached?,
                }
            };
            Ok(program.take_link(id)?)
        };
        self.hold(program, hook, replace, attach, |link| Held::Xdp { _until_dropped: link })
    }

    fn attach_tc(
        &self,
        program: &mut SchedClassifier,
        direction: TcAttachType,
        hook: Hook,
    ) -> Result<Held, HookError> {
        let replace = |program: &mut SchedClassifier, link: FdLink| {
            let id = program.attach_to_link(link.try_into()?)?;
            Ok(program.take_link(id)?)
        };
        let attach = |program: &mut SchedClassifier| {
            let id = program.attach(self.name, direction)?;
            Ok(program.take_link(id)?)
        };
        self.hold(program, hook, replace, attach, |link| Held::Tc { _until_dropped: link })
    }

    /// Takes over the link that is pinned for this hook; where there is none, attaches, and pins that if anything is pinned.
    fn hold<P, L>(
        &self,
        program: &mut P,
        hook: Hook,
        replace: impl FnOnce(&mut P, FdLink) -> Result<L, HookError>,
        attach: impl FnOnce(&mut P) -> Result<L, HookError>,
        held: impl FnOnce(L) -> Held,
    ) -> Result<Held, HookError>
    where
        FdLink: TryFrom<L, Error = LinkError>,
    {
        let Some(pins) = self.pins else { return attach(program).map(held) };
        let path = pins.link(self.ifindex, hook);
        // A link that is taken over is open twice for a moment, and the pin keeps it.
        if let Some(kept) = take_over(&path, |link| replace(program, link).map(drop)) {
            return Ok(kept);
        }
        Ok(Held::Pinned(FdLink::try_from(attach(program)?)?.pin(path)?))
    }
}

/// An interface takes one XDP program, in one mode.
fn is_taken(error: &ProgramError) -> bool {
    let ProgramError::SyscallError(call) = error else { return false };
    matches!(Errno::from_io_error(&call.io_error), Some(Errno::EXIST | Errno::BUSY))
}

/// Replaces the program of a link that is pinned. One of an interface that is gone is removed.
fn take_over(path: &Path, replace: impl FnOnce(FdLink) -> Result<(), HookError>) -> Option<Held> {
    let link = PinnedLink::from_pin(path).ok()?;
    let kept = PinnedLink::from_pin(path).ok()?;
    match replace(link.into()) {
        Ok(()) => Some(Held::Pinned(kept)),
        Err(error) => {
            tracing::debug!(path = %path.display(), error = &error as &dyn std::error::Error, "attached anew");
            let _not_there_anyway = kept.unpin();
            None
        }
    }
}

fn attach_ingress(
    object: &mut Object,
    place: Place<'_>,
    modes: &[Mode],
    mut reason: Option<String>,
) -> Result<Ingress, AttachError> {
    let name = place.name;
    let mut refusal = None;
    for mode in modes.iter().copied() {
        let attached = match mode {
            Mode::Native => {
                place.attach_xdp(object.xdp()?, XdpMode::Driver, Hook::Ingress(mode)).map(Link::Native)
            }
            Mode::Generic => attach_generic(object, place)?,
            Mode::Tc => {
                place.attach_tc(object.ingress()?, TcAttachType::Ingress, Hook::Ingress(mode)).map(Link::Tc)
            }
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

fn attach_generic(object: &mut Object, place: Place<'_>) -> Result<Result<Link, HookError>, LoadError> {
    let unseen_tag = object.unseen_tag()?;
    let confirming = match place.attach_tc(unseen_tag, TcAttachType::Ingress, Hook::UnseenTag) {
        Ok(link) => link,
        Err(error) => return Ok(Err(error)),
    };
    match place.attach_xdp(object.generic_xdp()?, XdpMode::Skb, Hook::Ingress(Mode::Generic)) {
        Ok(link) => Ok(Ok(Link::Generic(link, confirming))),
        Err(error) => {
            confirming.detach();
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
