//! What has to be so before turn-bpf attaches to interfaces, checked before anything is touched.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt, io,
};

use crate::{
    attachment::WantedMode,
    doctor::facts::filters,
    host::{self, KernelRelease, LoadedProgram, OLDEST_KERNEL, Privileges, Process},
    interfaces::{self, AttachedMode, Interface, UnknownInterface},
    obstacle::Obstacle,
    xdp_features::{self, XdpFeatures},
};

/// The interfaces with these names, in this order, if turn-bpf can attach to all of them in this mode. Programs that are attached and have
/// these ids are to be replaced.
pub async fn check(
    names: &[String],
    wanted: WantedMode,
    replaced: &HashSet<u32>,
) -> Result<Vec<Found>, PreflightError> {
    let mut facts = Facts::gather(names).await?;
    facts.overlook(replaced);
    facts.judge(names, wanted)
}

/// An interface that came back, if turn-bpf can attach to it in this mode.
pub async fn find_room(interface: &Interface, wanted: WantedMode) -> Option<Found> {
    let program = interface.xdp.map(|xdp| LoadedProgram::by_id(xdp.program_id));
    if program.as_ref().is_some_and(LoadedProgram::is_ours) {
        return None;
    }
    let features = xdp_features::query(interface.ifindex).await.unwrap_or_default();
    let driver = host::hardware_driver(interface);
    let obstacle = Obstacle::of(interface, program.as_ref(), features, driver.as_deref());
    let is_taken = matches!(obstacle, Some(Obstacle::OtherProgram { .. }));
    (!is_taken || matches!(wanted, WantedMode::Auto | WantedMode::Tc))
        .then(|| Found { interface: interface.clone(), obstacle })
}

/// An interface that turn-bpf can attach to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The interface.
    pub interface: Interface,
    /// What keeps turn-bpf out of its driver.
    pub obstacle: Option<Obstacle>,
}

/// Why turn-bpf does not attach. Each says what is wrong, with what, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// The same interface twice.
    #[error("{0} is given twice; name each interface once")]
    GivenTwice(String),
    /// No interface of that name.
    #[error(transparent)]
    NoSuchInterface(#[from] UnknownInterface),
    /// The interface is down.
    #[error("{0} is down; set it up first: ip link set dev {0} up")]
    Down(String),
    /// The interface carries something other than Ethernet frames.
    #[error(
        "{name} is not an Ethernet interface{}, and turn-bpf reads Ethernet frames; name the interface below it",
        Parenthesized(kind)
    )]
    NotEthernet {
        /// The interface.
        name: String,
        /// What it is instead, if the kernel says.
        kind: Option<String>,
    },
    /// Capabilities are missing.
    #[error(
        "no privilege to load BPF programs and attach them: {} missing; run as root, or have the service give \
         AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON",
        missing.join(", ")
    )]
    NoPrivilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// Root of a user namespace is not root.
    #[error(
        "no privilege to load BPF programs: this is a user namespace (a rootless container?), where CAP_BPF, \
         CAP_NET_ADMIN and CAP_PERFMON do not count; run outside it"
    )]
    UserNamespace,
    /// The kernel lacks what turn-bpf's programs call.
    #[error(
        "kernel {0} is too old: turn-bpf needs {OLDEST_KERNEL} or newer, whose verifier takes its programs"
    )]
    KernelTooOld(KernelRelease),
    /// The kernel does not show its types.
    #[error(
        "this kernel has no BTF ({path} is missing); use one built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are",
        path = host::BTF_PATH
    )]
    NoBtf,
    /// Another turn-bpf.
    #[error(
        "turn-bpf is already attached to {interface} ({}) - stop that one first{}",
        pid(holder),
        or_detach(holder)
    )]
    AlreadyAttached {
        /// The interface.
        interface: String,
        /// The process that holds the program, if it can be told.
        holder: Option<Process>,
    },
    /// Somebody else's XDP program.
    #[error(
        "{interface} already has an XDP program, {program}, {mode}; stop what attached it, or detach it: \
         ip link set dev {interface} {} off; or use --mode tc, which goes beside it",
        ip_keyword(*mode)
    )]
    OtherProgram {
        /// The interface.
        interface: String,
        /// The program.
        program: LoadedProgram,
        /// Where it runs.
        mode: AttachedMode,
    },
    /// Native mode was asked for, and there is none.
    #[error(
        "the driver of {interface}{} has no native XDP (it offers: {features}); use --mode auto or --mode tc",
        Parenthesized(kind)
    )]
    NoNative {
        /// The interface.
        interface: String,
        /// What kind of virtual device it is, if it is one.
        kind: Option<String>,
        /// What the driver has.
        features: XdpFeatures,
    },
    /// The capabilities could not be read.
    #[error("cannot read this process's capabilities")]
    Privileges(#[source] io::Error),
    /// The interfaces could not be read.
    #[error(transparent)]
    Interfaces(#[from] interfaces::Error),
    /// A driver's features could not be read.
    #[error(transparent)]
    XdpFeatures(#[from] xdp_features::Error),
}

/// What is known of the machine, and of the interfaces that were named.
#[derive(Debug, Clone)]
struct Facts {
    kernel: Option<KernelRelease>,
    has_btf: bool,
    privileges: Privileges,
    /// All there are.
    interfaces: Vec<Interface>,
    /// By the id with which an interface names its program.
    programs: BTreeMap<u32, LoadedProgram>,
    /// By ifindex.
    features: BTreeMap<u32, XdpFeatures>,
    /// By ifindex.
    drivers: BTreeMap<u32, String>,
    /// turn-bpf's own at TC, by ifindex.
    ours_at_tc: BTreeMap<u32, LoadedProgram>,
}

impl Facts {
    async fn gather(names: &[String]) -> Result<Self, PreflightError> {
        let interfaces = interfaces::list().await?;
        let (mut programs, mut features) = (BTreeMap::new(), BTreeMap::new());
        let (mut drivers, mut ours_at_tc) = (BTreeMap::new(), BTreeMap::new());
        for interface in interfaces.iter().filter(|interface| names.contains(&interface.name)) {
            if let Some(xdp) = interface.xdp {
                programs.insert(xdp.program_id, LoadedProgram::by_id(xdp.program_id));
            }
            if let Some(found) = xdp_features::query(interface.ifindex).await? {
                features.insert(interface.ifindex, found);
            }
            if let Some(driver) = host::hardware_driver(interface) {
                drivers.insert(interface.ifindex, driver);
            }
            let by_link = LoadedProgram::ours_at_tc(&interface.name);
            let ours =
                if by_link.is_some() { by_link } else { filters::ours_of_another(interface.ifindex).await };
            if let Some(ours) = ours {
                ours_at_tc.insert(interface.ifindex, ours);
            }
        }
        Ok(Self {
            kernel: KernelRelease::running(),
            has_btf: host::has_btf(),
            privileges: Privileges::of_this_process().map_err(PreflightError::Privileges)?,
            interfaces,
            programs,
            features,
            drivers,
            ours_at_tc,
        })
    }

    fn overlook(&mut self, programs: &HashSet<u32>) {
        for interface in &mut self.interfaces {
            interface.xdp = interface.xdp.filter(|xdp| !programs.contains(&xdp.program_id));
        }
        self.ours_at_tc.retain(|_, program| !programs.contains(&program.id));
    }

    fn judge(&self, names: &[String], wanted: WantedMode) -> Result<Vec<Found>, PreflightError> {
        let mut given = BTreeSet::new();
        if let Some(twice) = names.iter().find(|name| !given.insert(*name)) {
            return Err(PreflightError::GivenTwice(twice.clone()));
        }
        let named: Vec<_> =
            names.iter().map(|name| interfaces::find(&self.interfaces, name)).collect::<Result<_, _>>()?;
        for interface in &named {
            judge_interface(interface)?;
        }
        self.judge_host()?;
        named.into_iter().map(|interface| self.judge_attachment(interface, wanted)).collect()
    }

    fn judge_host(&self) -> Result<(), PreflightError> {
        if !self.privileges.is_initial_user_namespace {
            return Err(PreflightError::UserNamespace);
        }
        let missing = self.privileges.missing();
        if !missing.is_empty() {
            return Err(PreflightError::NoPrivilege { missing });
        }
        if let Some(kernel) = self.kernel.filter(|kernel| *kernel < OLDEST_KERNEL) {
            return Err(PreflightError::KernelTooOld(kernel));
        }
        if self.has_btf { Ok(()) } else { Err(PreflightError::NoBtf) }
    }

    /// A kernel that does not tell the driver's features will say at the attempt.
    fn judge_attachment(&self, interface: &Interface, wanted: WantedMode) -> Result<Found, PreflightError> {
        let (name, ifindex) = (interface.name.clone(), interface.ifindex);
        let program = interface.xdp.and_then(|xdp| self.programs.get(&xdp.program_id));
        let ours = program.filter(|program| program.is_ours()).or(self.ours_at_tc.get(&ifindex));
        if let Some(ours) = ours {
            return Err(PreflightError::AlreadyAttached { interface: name, holder: ours.holder.clone() });
        }
        let features = self.features.get(&ifindex).copied();
        let driver = self.drivers.get(&ifindex).map(String::as_str);
        let obstacle = Obstacle::of(interface, program, features, driver);
        match (obstacle, wanted) {
            (Some(Obstacle::OtherProgram { program, mode }), WantedMode::Native | WantedMode::Generic) => {
                Err(PreflightError::OtherProgram { interface: name, program, mode })
            }
            (Some(Obstacle::NoNative { kind }), WantedMode::Native) => Err(PreflightError::NoNative {
                interface: name,
                kind,
                features: features.unwrap_or_default(),
            }),
            (obstacle, _) => Ok(Found { interface: interface.clone(), obstacle }),
        }
    }
}

fn judge_interface(interface: &Interface) -> Result<(), PreflightError> {
    let name = interface.name.clone();
    if !interface.is_ethernet {
        return Err(PreflightError::NotEthernet { name, kind: interface.kind.clone() });
    }
    if interface.is_up { Ok(()) } else { Err(PreflightError::Down(name)) }
}

/// How `ip link set` calls programs of that mode.
pub(crate) fn ip_keyword(mode: AttachedMode) -> &'static str {
    match mode {
        AttachedMode::Native | AttachedMode::Several => "xdpdrv",
        AttachedMode::Generic => "xdpgeneric",
        AttachedMode::Offloaded => "xdpoffload",
    }
}

fn pid(holder: &Option<Process>) -> String {
    holder.as_ref().map_or_else(|| "pid unknown".to_owned(), |process| format!("pid {}", process.pid))
}

fn or_detach(holder: &Option<Process>) -> &'static str {
    match holder {
        Some(_) => "",
        None => {
            ", or, if none runs, remove what one with --keep has left: turn-bpf detach, with the same --pin-dir"
        }
    }
}

/// A remark after a name, if there is one.
struct Parenthesized<'a>(&'a Option<String>);

impl fmt::Display for Parenthesized<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(remark) => write!(f, " ({remark})"),
            None => Ok(()),
        }
    }
}
