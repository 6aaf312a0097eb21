//! What is gathered before anything is judged.

mod device;
pub(crate) mod filters;
mod firewall;
mod memory;
mod network;
mod server;

use std::fs;
use std::net::IpAddr;

pub use device::{Channels, Device};
pub use filters::Hook;
pub use firewall::{Concern, Firewall};
#[cfg(test)]
pub use firewall::{Rule, Tracking};
#[cfg(test)]
pub use memory::Free;
pub use memory::{Memory, footprint};
pub use network::Network;
#[cfg(test)]
pub use server::Listener;
pub use server::Server;

use super::{CoturnConfig, Error, Subject};
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
    /// The server's configuration, if one was named, or is that of the server that runs.
    pub coturn: Option<CoturnConfig>,
    /// The mode of lockdown, where the kernel has it.
    pub lockdown: Option<String>,
    /// What the maps take, and what is free.
    pub memory: Memory,
    /// Where programs are kept.
    pub bpf_filesystem: BpfFilesystem,
    /// The TURN server.
    pub server: Server,
    /// The rules that packets pass.
    pub firewall: Firewall,
    /// Addresses of this network namespace.
    pub addresses: Vec<IpAddr>,
}

/// What is at /sys/fs/bpf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfFilesystem {
    /// Nothing, or something else.
    Absent,
    /// A BPF file system that this process may not write to.
    ReadOnly,
    /// A BPF file system.
    Writable,
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
    /// Whether that end makes UDP checksums itself.
    pub other_end_sums: Option<bool>,
    /// What the driver is set to.
    pub device: Device,
    /// What is attached to what comes in.
    pub ingress: Hook,
    /// What is attached to what leaves.
    pub egress: Hook,
    /// Neighbours and reverse path filter.
    pub network: Network,
    /// VLANs and others on top of it.
    pub uppers: Vec<Interface>,
    /// What it is a port of.
    pub master: Option<Interface>,
    /// The names of the other ports of that.
    pub fellow_ports: Vec<String>,
    /// The names of its own ports, where it is a bond or bridge.
    pub ports: Vec<String>,
    /// The machine's CPUs.
    pub cpus: u32,
}

impl Facts {
    /// Asks the machine.
    pub async fn gather(subject: &Subject) -> Result<Self, Error> {
        let interfaces = interfaces::list().await?;
        let mut named = Vec::new();
        for name in &subject.interfaces {
            named.push(match interfaces::find(&interfaces, name) {
                Ok(interface) => Ok(InterfaceFacts::gather(interface, &interfaces).await?),
                Err(unknown) => Err(unknown),
            });
        }
        let coturn = subject.coturn.clone();
        let port = subject.port.or(coturn.as_ref().and_then(CoturnConfig::port)).unwrap_or(DEFAULT_PORT);
        let server = Server::gather(port).await;
        let process = server.listener.as_ref().and_then(|listener| listener.process.as_ref());
        let coturn = coturn.or_else(|| CoturnConfig::of_process(process?.pid));
        let relay_ports = coturn.as_ref().and_then(CoturnConfig::relay_ports).unwrap_or(RELAY_PORTS);
        let addresses = interfaces::local_addresses().await?;
        let concern = Concern { ports: vec![port..=port, relay_ports], addresses: addresses.clone() };
        Ok(Self {
            kernel: KernelRelease::running(),
            has_btf: host::has_btf(),
            jit: Jit::parse(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref()),
            privileges: Privileges::of_this_process().map_err(Error::Privileges)?,
            named,
            coturn,
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok().and_then(|text| chosen(&text)),
            memory: Memory::gather(subject.max_flows),
            bpf_filesystem: BpfFilesystem::gather(),
            server,
            firewall: Firewall::gather(&concern),
            addresses,
        })
    }
}

impl BpfFilesystem {
    fn gather() -> Self {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        if !Self::is_mounted(&mounts) {
            return Self::Absent;
        }
        match rustix::fs::access(BPF_FILESYSTEM, rustix::fs::Access::WRITE_OK) {
            Ok(()) => Self::Writable,
            Err(_) => Self::ReadOnly,
        }
    }

    /// By the last mount there, which is on top of the others.
    fn is_mounted(mounts: &str) -> bool {
        let mut there = mounts.lines().filter(|line| line.split(' ').nth(4) == Some(BPF_FILESYSTEM));
        let kind = there.next_back().and_then(|line| line.split_once(" - ")?.1.split(' ').next());
        kind == Some("bpf")
    }
}

/// The word in brackets.
fn chosen(modes: &str) -> Option<String> {
    let (_, rest) = modes.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

const BPF_FILESYSTEM: &str = "/sys/fs/bpf";
/// RFC 8656 section 4.3.
const DEFAULT_PORT: u16 = 3478;
/// RFC 8656 section 7.2, and what servers use where they are told nothing else.
const RELAY_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

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
        let driver = host::hardware_driver(interface).or_else(|| interface.kind.clone());
        let device = Device::gather(interface.ifindex, &interface.name, driver.as_deref()).await;
        let [ingress, egress] = filters::gather(&interface.name, interface.ifindex).await;
        let other_end = all.iter().find(is_other_end).cloned();
        let other_end_sums = match &other_end {
            Some(other) => Device::gather(other.ifindex, &other.name, None).await.makes_checksums(),
            None => None,
        };
        let is_veth = |other: &&Interface| other.kind.as_deref() == Some("veth");
        let is_upper = |other: &&Interface| other.lower_ifindex == Some(interface.ifindex) && !is_veth(other);
        let ports_of = |master: Option<u32>| {
            let ports = all.iter().filter(move |other| master.is_some() && other.master_ifindex == master);
            ports.filter(|port| port.ifindex != interface.ifindex).map(|port| port.name.clone()).collect()
        };
        Ok(Self {
            driver,
            device,
            ingress,
            egress,
            other_end_sums,
            network: Network::gather(interface.ifindex, &interface.name).await,
            uppers: all.iter().filter(is_upper).cloned().collect(),
            master: all.iter().find(|other| Some(other.ifindex) == interface.master_ifindex).cloned(),
            fellow_ports: ports_of(interface.master_ifindex),
            ports: ports_of(Some(interface.ifindex)),
            cpus: std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u32),
            features: xdp_features::query(interface.ifindex).await?,
            program: interface.xdp.map(|xdp| LoadedProgram::by_id(xdp.program_id)),
            other_end,
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

    #[test]
    fn the_mode_of_lockdown() {
        assert_eq!(chosen("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(chosen("").as_deref(), None);
    }

    #[test]
    fn what_is_mounted_last_counts() {
        let bpf = "30 24 0:26 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n";
        let sysfs = "72 60 0:40 / /sys rw,relatime - sysfs tb rw\n";
        let over = "80 30 0:50 / /sys/fs/bpf rw - tmpfs tmpfs rw\n";
        assert!(BpfFilesystem::is_mounted(&[sysfs, bpf].concat()));
        assert!(!BpfFilesystem::is_mounted(sysfs));
        assert!(!BpfFilesystem::is_mounted(&[bpf, over].concat()));
    }

    #[tokio::test]
    async fn facts_of_loopback() {
        let interfaces = vec!["lo".into(), "none-such".into()];
        let subject = Subject { interfaces, coturn: None, port: None, max_flows: 65_536 };
        let facts = Facts::gather(&subject).await.unwrap();
        assert!(facts.kernel.is_some());
        let [Ok(lo), Err(unknown)] = &facts.named[..] else { panic!("{facts:?}") };
        assert_eq!((lo.interface.name.as_str(), &lo.driver), ("lo", &None));
        assert!(unknown.known.contains(&"lo".to_owned()), "{unknown}");
    }
}
