//! Wires that carry VLANs: hosts talk by interfaces on top of the veth ends, which turn-bpf knows nothing of. Needs a kernel with
//! 802.1Q, which is a module of its own (`8021q`).

use super::{Lab, LabError, Namespace, Topology, default_route};
use crate::packet::{TPID_8021AD, Tag};

/// Where the outermost tag of a frame is on its way over a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outermost {
    /// In the frame: neither end's device does anything about tags.
    InFrame,
    /// Beside the frame, where a device that takes tags off incoming frames puts it. So does a veth whose other end left it to
    /// the device to insert it.
    Beside,
}

/// One end of one of the server's wires.
struct End<'a> {
    namespace: &'a Namespace,
    interface: &'static str,
    host: u8,
    /// Host of the same net that everything else is sent to.
    gateway: Option<u8>,
}

impl Lab {
    /// Has both ends of one of the server's wires talk by these VLANs, the outermost tag first, and by no others any longer. Their
    /// addresses move to the uppermost interface; the tags that they send have the priorities that are given here. Returns the name of
    /// the server's one.
    pub fn tag(&self, interface: &str, tags: &[Tag], outermost: Outermost) -> Result<String, LabError> {
        let (net, ends) = self.ends(interface);
        let mut names = Vec::new();
        for end in &ends {
            let state = if outermost == Outermost::InFrame { "off" } else { "on" };
            let features = ["txvlan", state, "tx-vlan-stag-hw-insert", state];
            end.namespace.run("ethtool", &[&["-K", end.interface], &features[..]].concat())?;
            end.bare()?;
            names.push(end.stack(tags, net)?);
        }
        for (end, name) in ends.iter().zip(&names) {
            end.namespace.wait_for_carrier(name)?;
            if let Some(gateway) = end.gateway {
                default_route(end.namespace, net, gateway)?;
            }
        }
        Ok(names.swap_remove(0))
    }

    /// In [`Topology::One`]: has the server and its router talk by a VLAN beside what they have, in net 3, whenever the peer's net is
    /// concerned.
    pub fn tag_peers(&self, tag: Tag) -> Result<(), LabError> {
        const NET: u8 = 3;
        let (_, ends) = self.ends("srv0");
        for end in &ends {
            let name = end.stack(&[tag], NET)?;
            end.namespace.wait_for_carrier(&name)?;
        }
        let [server, router] = ends.map(|end| end.namespace);
        for (family, peers, gateway, back) in [
            ("-4", "198.18.2.0/24", "198.18.3.254", "198.18.3.1"),
            ("-6", "2001:db8:2::/64", "2001:db8:3::fe", "2001:db8:3::1"),
        ] {
            server.run("ip", &[family, "route", "add", peers, "via", gateway])?;
            // Before the table of what is connected, in which the server is by its first address.
            if !router.output("ip", &[family, "rule", "show"])?.contains("rtr-peer") {
                router.run("ip", &[family, "rule", "add", "iif", "rtr-peer", "lookup", "100"])?;
            }
            router.run("ip", &[family, "route", "add", "default", "via", back, "table", "100"])?;
        }
        Ok(())
    }

    /// The net of one of the server's wires, its end there and the other one.
    fn ends(&self, interface: &str) -> (u8, [End<'_>; 2]) {
        let end = |namespace, interface, host, gateway| End { namespace, interface, host, gateway };
        let server = &self.server;
        match (self.topology, &self.router, interface) {
            (Topology::One, Some(router), "srv0") => {
                (0, [end(server, "srv0", 1, Some(254)), end(router, "rtr-srv", 254, None)])
            }
            (Topology::Two, _, "srv0") => {
                (1, [end(server, "srv0", 1, None), end(&self.client, "cli0", 2, Some(1))])
            }
            (Topology::Two, _, "srv1") => {
                (2, [end(server, "srv1", 1, None), end(&self.peer, "peer0", 2, Some(1))])
            }
            _ => panic!("the server has no wire called {interface}"),
        }
    }
}

impl End<'_> {
    /// Takes away whatever gives this end an address.
    fn bare(&self) -> Result<(), LabError> {
        let links = self.namespace.output("ip", &["-brief", "link", "show", "type", "vlan"])?;
        let prefix = format!("{}.", self.interface);
        // What is on top goes with it: `srv0.10@srv0`.
        let names = links.lines().filter_map(|line| line.split('@').next());
        for name in names.filter(|name| name.strip_prefix(&prefix).is_some_and(|vlan| !vlan.contains('.'))) {
            self.namespace.run("ip", &["link", "delete", name])?;
        }
        for family in ["-4", "-6"] {
            let run = |arguments: [&str; 7]| self.namespace.run("ip", &arguments);
            run([family, "address", "flush", "dev", self.interface, "scope", "global"])?;
            run([family, "route", "flush", "exact", "default", "dev", self.interface])?;
        }
        Ok(())
    }

    /// VLAN interfaces, one on top of the other, of which the uppermost one gets this end's address of the net. Returns its name.
    fn stack(&self, tags: &[Tag], net: u8) -> Result<String, LabError> {
        let run = |arguments: &[&str]| self.namespace.run("ip", arguments);
        let mut below = self.interface.to_owned();
        for tag in tags {
            let (vlan, priority) = (tag.tci & 0x0fff, tag.tci >> 13);
            let name = format!("{below}.{vlan}");
            let protocol = if tag.tpid == TPID_8021AD { "802.1ad" } else { "802.1Q" };
            let (vlan, priorities) = (vlan.to_string(), format!("0:{priority}"));
            let how = ["type", "vlan", "protocol", protocol, "id", &vlan, "egress-qos-map", &priorities];
            run(&[&["link", "add", "link", &below, "name", &name], &how[..]].concat())?;
            run(&["link", "set", &name, "up"])?;
            below = name;
        }
        let host = self.host;
        run(&["address", "add", &format!("198.18.{net}.{host}/24"), "dev", &below])?;
        run(&["address", "add", &format!("2001:db8:{net:x}::{host:x}/64"), "dev", &below, "nodad"])?;
        Ok(below)
    }
}
