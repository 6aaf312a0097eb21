//! A laboratory of network namespaces and veth pairs: a client, a server and a peer, in addresses that are kept for tests.
//!
//! The server's namespace never forwards (`ip_forward` 0). Dropping the lab removes everything; what a killed process left
//! behind is removed when the next lab is made.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};

use thiserror::Error;

pub use self::leftovers::remove as remove_leftovers;
pub use self::namespace::Namespace;
pub use self::pass_program::{EgressProgram, NAME as PASS_PROGRAM, XdpMode};
pub use self::vlan::Outermost;

mod leftovers;
mod namespace;
mod pass_program;
mod vlan;

/// How clients and peers reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topology {
    /// Through one interface of the server, `srv0`: a router is in front of it.
    One,
    /// Clients through `srv0`, peers through `srv1`.
    Two,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Something in the lab could not be done.
#[derive(Debug, Error)]
pub enum LabError {
    /// A command could not be started.
    #[error("cannot run {command}")]
    Spawn {
        /// The command line.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// A command failed.
    #[error("{command}: {status}: {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: ExitStatus,
        /// What it wrote.
        output: String,
    },
    /// A namespace could not be entered.
    #[error("cannot enter the namespace {namespace}")]
    Enter {
        /// Its name.
        namespace: String,
        /// Why not.
        source: io::Error,
    },
    /// A kernel parameter could not be set.
    #[error("cannot set /proc/sys/net/{key} in the namespace {namespace}")]
    Sysctl {
        /// The namespace.
        namespace: String,
        /// Path under /proc/sys/net.
        key: String,
        /// Why not.
        source: io::Error,
    },
    /// An interface did not come up in time.
    #[error("{interface} in the namespace {namespace} does not come up")]
    NoCarrier {
        /// The namespace.
        namespace: String,
        /// The interface.
        interface: String,
    },
    /// A socket could not be bound.
    #[error("cannot bind {address} in the namespace {namespace}")]
    Bind {
        /// The namespace.
        namespace: String,
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The program that lets everything pass could not be attached.
    #[error("cannot attach an XDP program to {interface} in {namespace}")]
    Attach {
        /// The namespace.
        namespace: String,
        /// The interface.
        interface: String,
        /// Why not.
        source: io::Error,
    },
    /// Not root.
    #[error("network namespaces need root")]
    NotRoot,
}

/// The addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Of the client.
    pub client: IpAddr,
    /// Where the TURN server listens: on `srv0`.
    pub listen: IpAddr,
    /// Where the TURN server relays: on `srv1`, or on `srv0` again where there is one interface.
    pub relay: IpAddr,
    /// Of the peer.
    pub peer: IpAddr,
}

/// The end of a veth pair in a namespace other than the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FarEnd {
    namespace: String,
    interface: &'static str,
    faces_server: bool,
}

/// A set-up laboratory.
#[derive(Debug)]
pub struct Lab {
    /// How clients and peers reach the server.
    pub topology: Topology,
    /// Where clients live.
    pub client: Namespace,
    /// Where the TURN server lives.
    pub server: Namespace,
    /// Where peers live.
    pub peer: Namespace,
    /// In front of the server, in [`Topology::One`].
    pub router: Option<Namespace>,
    number: u32,
    far_ends: Vec<FarEnd>,
    pass_links: Vec<OwnedFd>,
}

impl Lab {
    /// Makes namespaces, veth pairs, addresses and routes. Checksum offload is off everywhere: between veth ends it leaves
    /// partial sums in the packets.
    pub fn new(topology: Topology) -> Result<Self, LabError> {
        if !rustix::process::geteuid().is_root() {
            return Err(LabError::NotRoot);
        }
        leftovers::remove();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = |role| named(number, role);
        let router = match topology {
            Topology::One => Some(namespace("router")?),
            Topology::Two => None,
        };
        let mut lab = Self {
            topology,
            client: namespace("client")?,
            server: namespace("server")?,
            peer: namespace("peer")?,
            router,
            number,
            far_ends: Vec::new(),
            pass_links: Vec::new(),
        };
        lab.connect()?;
        Ok(lab)
    }

    /// The server's interfaces: the arguments for `turn-bpf run`.
    pub fn interfaces(&self) -> &'static [&'static str] {
        match self.topology {
            Topology::One => &["srv0"],
            Topology::Two => &["srv0", "srv1"],
        }
    }

    /// Who has which address.
    pub fn addresses(&self, family: Family) -> Addresses {
        let address = |net: u8, host: u8| -> IpAddr {
            match family {
                Family::V4 => [198, 18, net, host].into(),
                Family::V6 => [0x2001, 0xdb8, net.into(), 0, 0, 0, 0, host.into()].into(),
            }
        };
        let (listen, relay) = match self.topology {
            Topology::One => (address(0, 1), address(0, 1)),
            Topology::Two => (address(1, 1), address(2, 1)),
        };
        Addresses { client: address(1, 2), listen, relay, peer: address(2, 2) }
    }

    /// Every namespace.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        [&self.client, &self.server, &self.peer].into_iter().chain(&self.router)
    }

    /// Every veth end outside the server: what passes here is what was really on the wire, while frames that XDP transmits do not
    /// show on the server's own interface.
    pub fn wires(&self) -> Vec<(&Namespace, &'static str)> {
        self.far_ends
            .iter()
            .flat_map(|end| {
                self.namespaces().filter(|ns| ns.name() == end.namespace).map(|ns| (ns, end.interface))
            })
            .collect()
    }

    /// One more namespace, which is connected to nothing.
    pub fn add_namespace(&self, role: &str) -> Result<Namespace, LabError> {
        named(self.number, role)
    }

    /// One more host on the wires of client and peer (`third0` and `third1`), which can send whatever it likes there. In
    /// [`Topology::Two`] only.
    pub fn add_third_host(&self) -> Result<Namespace, LabError> {
        let third = self.add_namespace("third")?;
        for (namespace, below, name) in [(&self.client, "cli0", "third0"), (&self.peer, "peer0", "third1")] {
            let arguments = ["link", "add", "link", below, "name", name, "netns", third.name()];
            namespace.run("ip", &[&arguments[..], &["type", "macvlan", "mode", "bridge"]].concat())?;
            third.run("ip", &["link", "set", name, "up"])?;
        }
        Ok(third)
    }

    /// Attaches a native XDP program that lets everything pass to the far end of each of the server's interfaces, for the life of the
    /// lab. A veth end can transmit XDP frames only if its other end runs such a program.
    pub fn attach_pass(&mut self) -> Result<(), LabError> {
        let facing: Vec<FarEnd> = self.far_ends.iter().filter(|end| end.faces_server).cloned().collect();
        for FarEnd { namespace, interface, .. } in facing {
            let namespace = self.namespaces().find(|ns| ns.name() == namespace);
            let Some(namespace) = namespace else { continue };
            let link = namespace.attach_pass(interface, XdpMode::Native)?;
            self.pass_links.push(link);
        }
        Ok(())
    }

    /// Detaches what [`Lab::attach_pass`] attached.
    pub fn detach_pass(&mut self) {
        self.pass_links.clear();
    }

    fn connect(&mut self) -> Result<(), LabError> {
        match &self.router {
            Some(router) => {
                for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                    router.set_sysctl(key, "1")?;
                }
                self.far_ends = vec![
                    link((&self.server, "srv0", 0, 1), (router, "rtr-srv", 254), true)?,
                    link((&self.client, "cli0", 1, 2), (router, "rtr-cli", 254), false)?,
                    link((&self.peer, "peer0", 2, 2), (router, "rtr-peer", 254), false)?,
                ];
                for (end, net) in [(&self.server, 0), (&self.client, 1), (&self.peer, 2)] {
                    default_route(end, net, 254)?;
                }
            }
            None => {
                self.far_ends = vec![
                    link((&self.server, "srv0", 1, 1), (&self.client, "cli0", 2), true)?,
                    link((&self.server, "srv1", 2, 1), (&self.peer, "peer0", 2), true)?,
                ];
                default_route(&self.client, 1, 1)?;
                default_route(&self.peer, 2, 1)?;
            }
        }
        Ok(())
    }
}

fn named(number: u32, role: &str) -> Result<Namespace, LabError> {
    Namespace::new(format!("tb-{}-{number}-{role}", std::process::id()))
}

/// Makes a veth pair like those of every lab between (namespace, interface, net, host) and (namespace, interface, host of the same
/// net). Networks 0 to 2 are the lab's own.
pub fn connect(near: (&Namespace, &str, u8, u8), far: (&Namespace, &str, u8)) -> Result<(), LabError> {
    let (near_namespace, near_interface, net, near_host) = near;
    let (far_namespace, far_interface, far_host) = far;
    // The kernel delays the news of a carrier by up to a second if both ends happen to have the same index in their namespaces.
    let [near_index, far_index] = [10, 20].map(|base| (base + net).to_string());
    let near_arguments = ["link", "add", near_interface, "index", &near_index, "type", "veth"];
    let far_arguments = ["peer", "name", far_interface, "index", &far_index, "netns", far_namespace.name()];
    near_namespace.run("ip", &[&near_arguments[..], &far_arguments[..]].concat())?;
    for (namespace, interface, host) in
        [(near_namespace, near_interface, near_host), (far_namespace, far_interface, far_host)]
    {
        let v4 = format!("198.18.{net}.{host}/24");
        let v6 = format!("2001:db8:{net:x}::{host:x}/64");
        let offloads = ["rx", "tx", "gro", "gso", "tso"];
        let mut ethtool = vec!["-K", interface];
        ethtool.extend(offloads.iter().flat_map(|offload| [*offload, "off"]));
        namespace.run("ethtool", &ethtool)?;
        namespace.run("ip", &["address", "add", &v4, "dev", interface])?;
        namespace.run("ip", &["address", "add", &v6, "dev", interface, "nodad"])?;
        namespace.run("ip", &["link", "set", interface, "up"])?;
    }
    near_namespace.wait_for_carrier(near_interface)?;
    far_namespace.wait_for_carrier(far_interface)
}

fn link(
    near: (&Namespace, &str, u8, u8),
    far: (&Namespace, &'static str, u8),
    faces_server: bool,
) -> Result<FarEnd, LabError> {
    connect(near, far)?;
    let (namespace, interface, _) = far;
    Ok(FarEnd { namespace: namespace.name().into(), interface, faces_server })
}

/// Sends what is for other networks to a host of one of the namespace's own.
pub fn default_route(namespace: &Namespace, net: u8, gateway: u8) -> Result<(), LabError> {
    namespace.run("ip", &["route", "add", "default", "via", &format!("198.18.{net}.{gateway}")])?;
    namespace.run("ip", &["-6", "route", "add", "default", "via", &format!("2001:db8:{net:x}::{gateway:x}")])
}

#[cfg(test)]
mod tests;
