//! What is gathered before anything is judged.

use std::fs;

use super::{CoturnConfig, Error};
use crate::{
    host::{self, KernelRelease, LoadedProgram, Privileges},
    interfaces::{self, Interface, UnknownInterface},
    xdp_features::{self, XdpFeatures},
};

/// What is known of the machine and of the interfaces that were named.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The running kernel's version.
    pub kernel: Option<KernelRelease>,
    /// Whether the kernel shows its types.
    pub has_btf: bool,
    /// Whether BPF programs are compiled.
    pub jit: Jit,
    /// What this process may do.
    pub privileges: Privileges,
    /// The named interfaces, or that there is none of that name.
    pub named: Vec<Result<InterfaceFacts, UnknownInterface>>,
    /// The server's configuration, if one was named.
    pub coturn: Option<CoturnConfig>,
}

/// Whether the kernel compiles BPF programs, by net.core.bpf_jit_enable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Jit {
    /// 0: it interprets them.
    Off,
    /// 1.
    On,
    /// 2: it compiles them, and writes the code to the log.
    Debugging,
    /// It does not say: that is shown in the first network namespace only.
    Untold,
}

/// What is known of one interface.
#[derive(Debug, Clone)]
pub struct InterfaceFacts {
    /// What netlink tells.
    pub interface: Interface,
    /// Its driver, or what kind of virtual device it is.
    pub driver: Option<String>,
    /// What the driver can do. `None` before 6.3.
    pub features: Option<XdpFeatures>,
    /// The XDP program on it.
    pub program: Option<LoadedProgram>,
    /// A veth's other end, if that is in this namespace.
    pub other_end: Option<Interface>,
}

impl Facts {
    /// Asks the machine.
    pub async fn gather(names: &[String]) -> Result<Self, Error> {
        let interfaces = interfaces::list().await?;
        let mut named = Vec::new();
        for name in names {
            named.push(match interfaces::find(&interfaces, name) {
                Ok(interface) => Ok(InterfaceFacts::gather(interface, &interfaces).await?),
                Err(unknown) => Err(unknown),
            });
        }
        Ok(Self {
            kernel: KernelRelease::running(),
            has_btf: host::has_btf(),
            jit: Jit::parse(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref()),
            privileges: Privileges::of_this_process().map_err(Error::Privileges)?,
            named,
            coturn: None,
        })
    }
}

impl Jit {
    fn parse(sysctl: Option<&str>) -> Self {
        match sysctl.map(str::trim) {
            Some("0") => Self::Off,
            Some("1") => Self::On,
            Some("2") => Self::Debugging,
            _ => Self::Untold,
        }
    }
}

impl InterfaceFacts {
    async fn gather(interface: &Interface, all: &[Interface]) -> Result<Self, Error> {
        let is_veth = interface.kind.as_deref() == Some("veth");
        let is_other_end = |other: &&Interface| is_veth && Some(other.ifindex) == interface.lower_ifindex;
        Ok(Self {
            driver: host::hardware_driver(interface).or_else(|| interface.kind.clone()),
            features: xdp_features::query(interface.ifindex).await?,
            program: interface.xdp.map(|xdp| LoadedProgram::by_id(xdp.program_id)),
            other_end: all.iter().find(is_other_end).cloned(),
            interface: interface.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sysctl_of_the_compiler() {
        let cases = [
            (Some("0\n"), Jit::Off),
            (Some("1\n"), Jit::On),
            (Some("2\n"), Jit::Debugging),
            (Some(""), Jit::Untold),
            (None, Jit::Untold),
        ];
        for (sysctl, expected) in cases {
            assert_eq!(Jit::parse(sysctl), expected, "{sysctl:?}");
        }
    }

    #[tokio::test]
    async fn facts_of_loopback() {
        let facts = Facts::gather(&["lo".into(), "none-such".into()]).await.unwrap();
        assert!(facts.kernel.is_some());
        let [Ok(lo), Err(unknown)] = &facts.named[..] else { panic!("{facts:?}") };
        assert_eq!((lo.interface.name.as_str(), &lo.driver), ("lo", &None));
        assert!(unknown.known.contains(&"lo".to_owned()), "{unknown}");
    }
}
