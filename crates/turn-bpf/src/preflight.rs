//! What has to be so before turn-bpf attaches to interfaces, checked before anything is touched.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use crate::{
    host::{self, KernelRelease, LoadedProgram, OLDEST_KERNEL, Privileges, Process},
    interfaces::{self, AttachedMode, Interface, UnknownInterface},
    xdp_features::{self, XdpFeatures},
};

/// The interfaces with these names, in this order, if turn-bpf can attach to all of them. `needs_native` is whether it
/// must run in their drivers.
pub async fn check(names: &[String], needs_native: bool) -> Result<Vec<Interface>, PreflightError> {
    Facts::gather(names).await?.judge(names, needs_native)
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
        "kernel {0} is too old: turn-bpf needs {OLDEST_KERNEL} or newer, where XDP programs have bpf_xdp_load_bytes"
    )]
    KernelTooOld(KernelRelease),
    /// The kernel does not show its types.
    #[error(
        "this kernel has no BTF ({path} is missing); use one built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are",
        path = host::BTF_PATH
    )]
    NoBtf,
    /// Another turn-bpf.
    #[error("turn-bpf is already attached to {interface} ({}) - stop that one first", pid(holder))]
    AlreadyAttached {
        /// The interface.
        interface: String,
        /// The process that holds the program, if it can be told.
        holder: Option<Process>,
    },
    /// Somebody else's XDP program.
    #[error(
        "{interface} already has an XDP program, {program}, {mode}; stop what attached it, or detach it: \
         ip link set dev {interface} {} off",
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
        "the driver of {interface}{} has no native XDP (it offers: {features}); use --mode auto or --mode generic",
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
}

impl Facts {
    async fn gather(names: &[String]) -> Result<Self, PreflightError> {
        let interfaces = interfaces::list().await?;
        let (mut programs, mut features) = (BTreeMap::new(), BTreeMap::new());
        for interface in interfaces.iter().filter(|interface| names.contains(&interface.name)) {
            if let Some(xdp) = interface.xdp {
                programs.insert(xdp.program_id, LoadedProgram::by_id(xdp.program_id));
            }
            if let Some(found) = xdp_features::query(interface.ifindex).await? {
                features.insert(interface.ifindex, found);
            }
        }
        Ok(Self {
            kernel: KernelRelease::running(),
            has_btf: host::has_btf(),
            privileges: Privileges::of_this_process().map_err(PreflightError::Privileges)?,
            interfaces,
            programs,
            features,
        })
    }

    fn judge(&self, names: &[String], needs_native: bool) -> Result<Vec<Interface>, PreflightError> {
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
        for interface in &named {
            self.judge_programs(interface)?;
            self.judge_driver(interface, needs_native)?;
        }
        Ok(named.into_iter().cloned().collect())
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

    fn judge_programs(&self, interface: &Interface) -> Result<(), PreflightError> {
        let Some(xdp) = interface.xdp else { return Ok(()) };
        let program = self.programs.get(&xdp.program_id).cloned();
        let program = program.unwrap_or(LoadedProgram { id: xdp.program_id, name: None, holder: None });
        let interface = interface.name.clone();
        Err(if program.is_ours() {
            PreflightError::AlreadyAttached { interface, holder: program.holder }
        } else {
            PreflightError::OtherProgram { interface, program, mode: xdp.mode }
        })
    }

    /// A kernel that does not tell the driver's features will say at the attempt.
    fn judge_driver(&self, interface: &Interface, needs_native: bool) -> Result<(), PreflightError> {
        match self.features.get(&interface.ifindex) {
            Some(features) if needs_native && !features.has_native() => Err(PreflightError::NoNative {
                interface: interface.name.clone(),
                kind: interface.kind.clone(),
                features: *features,
            }),
            _ => Ok(()),
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
