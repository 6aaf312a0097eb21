//! Of interfaces and their drivers.

use super::super::facts::InterfaceFacts;
use super::super::{Check, Group};
use super::settings::{
    allowances, gateway, hardware_merging, merged_datagrams, ports, queues, vlan_stripping,
};
use crate::host::LoadedProgram;
use crate::interfaces::{AttachedMode, Interface, UnknownInterface};
use crate::obstacle::Obstacle;
use crate::xdp_features::XdpFeatures;

/// All of these, of one interface. `named` are all that were named.
pub fn checks(facts: &InterfaceFacts, named: &[&str]) -> Vec<Check> {
    let mut checks = vec![
        exists(facts),
        up(facts),
        ethernet(facts),
        driver(facts),
        native_xdp(facts),
        redirect_target(facts),
        mtu(facts),
        queues(facts),
        hardware_merging(facts),
        merged_datagrams(facts),
        vlan_stripping(facts),
        ports(facts, named),
        gateway(facts),
        mode(facts),
    ];
    if facts.is_veth() {
        checks.extend([veth_other_end(facts), veth_checksums(facts)]);
    }
    if facts.driver.as_deref() == Some("ena") {
        checks.push(allowances(facts));
    }
    checks
}

/// There is no such interface.
pub fn missing(unknown: &UnknownInterface) -> Check {
    Group::Interface
        .check("exists", &unknown.name)
        .fail(unknown.to_string(), "name one of these; ip link shows them")
}

fn exists(facts: &InterfaceFacts) -> Check {
    facts.check("exists").pass(format!("index {}", facts.interface.ifindex))
}

fn up(facts: &InterfaceFacts) -> Check {
    let check = facts.check("up");
    if facts.interface.is_up {
        check.pass("is up")
    } else {
        check.fail("is down, and carries nothing", format!("ip link set dev {} up", facts.interface.name))
    }
}

fn ethernet(facts: &InterfaceFacts) -> Check {
    let check = facts.check("ethernet");
    if facts.interface.is_ethernet {
        check.pass("its frames begin with an Ethernet header")
    } else {
        check.fail("it carries something other than Ethernet frames", "name the interface below it")
    }
}

fn driver(facts: &InterfaceFacts) -> Check {
    let check = facts.check("driver");
    match facts.driver.as_deref() {
        None => check.skip("neither hardware with a driver, nor a kind of virtual device that the kernel names"),
        Some("gve") => check.warn(
            "gve; with its GQI queues it leaves no room before a frame, and in native mode peer to client would go through \
             the server",
            "turn-bpf run --mode tc, which is what it does by itself",
        ),
        Some(driver) => check.pass(driver),
    }
}

fn native_xdp(facts: &InterfaceFacts) -> Check {
    let check = facts.check("native_xdp");
    match facts.features {
        None => check.skip("kernels before 6.3 do not tell; turn-bpf will try, and else use tc mode"),
        Some(features) if features.has_native() => check.pass(format!("the driver offers: {features}")),
        Some(_) if facts.is_on_top_of_another() => {
            check.warn("no native XDP: tc mode, which is slower", "name the interface below it instead")
        }
        Some(_) if facts.is_veth() => check.warn(
            "no native XDP: it has fewer receive queues than its other end has transmit queues; tc mode, which is \
             slower",
            format!("ethtool -L {} rx N, with N as many as the other end's transmit queues", facts.interface.name),
        ),
        Some(_) => check.warn_only("no native XDP: tc mode, which is slower"),
    }
}

fn redirect_target(facts: &InterfaceFacts) -> Check {
    let check = facts.check("redirect_target");
    match facts.features {
        None => check.skip("kernels before 6.3 do not tell"),
        Some(features) if features.can_transmit_redirected() => {
            check.pass("transmits frames that come in by another interface")
        }
        Some(features) if !features.has_native() => check.warn(
            "does not transmit what a native program on another interface redirects to it: such flows stay with the \
             server",
            "turn-bpf run --mode tc, if most flows go from one interface to another",
        ),
        Some(_) if facts.is_veth() => check.warn(
            "transmits frames that come in by another interface only while its other end has a native XDP program",
            VETH_MEND,
        ),
        Some(_) => check.skip(
            "not now, but most drivers transmit frames that come in by another interface only while they have a \
             program themselves",
        ),
    }
}

fn mtu(facts: &InterfaceFacts) -> Check {
    let (check, mtu) = (facts.check("mtu"), facts.interface.mtu);
    if facts.features.is_some_and(|features| !features.has_native()) {
        return check.pass(format!("{mtu}; tc mode takes what the interface does"));
    }
    if facts.features.is_some_and(|features| features.contains(XdpFeatures::RX_SG)) {
        return check.pass(format!("{mtu}; the driver takes frames in several parts, so there is no limit"));
    }
    let driver = facts.driver.as_deref().unwrap_or("an unknown driver");
    let (largest, where_from) = match largest_mtu(driver) {
        Some(largest) => (largest, format!("{driver} takes XDP programs up to {largest}")),
        None => {
            (USUAL_LARGEST_MTU, format!("drivers commonly take XDP programs up to about {USUAL_LARGEST_MTU}"))
        }
    };
    if mtu <= largest {
        return check.pass(format!("{mtu}; {where_from}"));
    }
    check.warn(
        format!("{mtu}; {where_from}: tc mode, which is slower"),
        format!("ip link set dev {} mtu {largest}", facts.interface.name),
    )
}

/// Which mode `turn-bpf run` takes by itself.
fn mode(facts: &InterfaceFacts) -> Check {
    let check = facts.check("mode");
    if facts.program.as_ref().is_some_and(LoadedProgram::is_ours) {
        return check.skip("turn-bpf runs; turn-bpf status tells its mode");
    }
    match facts.obstacle() {
        Some(obstacle) => check.warn_only(format!("tc: {obstacle}")),
        None if facts.features.is_none() => check.pass("native, if the driver can, and else tc"),
        None => check.pass("native, unless the driver refuses (as for its MTU or queues), and then tc"),
    }
}

/// veth_xdp_xmit and veth_xdp_tx hand frames to the other end's receive queue, which takes them only if it has a native
/// program of its own.
fn veth_other_end(facts: &InterfaceFacts) -> Check {
    let check = facts.check("veth_other_end");
    let native = |other: &Interface| other.xdp.is_some_and(|xdp| xdp.mode != AttachedMode::Generic);
    match &facts.other_end {
        Some(other) if native(other) => {
            check.pass(format!("{} has a native XDP program, and takes the frames that are sent to it", other.name))
        }
        _ => check.warn(
            "a veth's other end drops what a native program sends to it, unless that end has a native XDP program too",
            VETH_MEND,
        ),
    }
}

fn veth_checksums(facts: &InterfaceFacts) -> Check {
    let check = facts.check("veth_checksums");
    if facts.other_end_sums == Some(true) {
        return check.pass("its other end makes UDP checksums itself");
    }
    check.warn(
        "senders on this host leave UDP checksums to the (virtual) hardware; turn-bpf leaves such packets to the server",
        on_other_end(facts, |other| format!("ethtool -K {other} tx off")),
    )
}

/// What to do at a veth's other end, wherever that is.
fn on_other_end(facts: &InterfaceFacts, command: impl Fn(&str) -> String) -> String {
    match &facts.other_end {
        Some(other) => command(&other.name),
        None => format!("in the other end's namespace: {}", command("OTHER_END")),
    }
}

/// The largest MTU with which a driver takes a program where it does not hand over frames in several parts.
fn largest_mtu(driver: &str) -> Option<u32> {
    let (_, largest) = LARGEST_MTU.iter().find(|(name, _)| *name == driver)?;
    Some(*largest)
}

impl InterfaceFacts {
    pub(super) fn check(&self, id: &'static str) -> Check {
        Group::Interface.check(id, &self.interface.name)
    }

    pub(super) fn is_veth(&self) -> bool {
        self.interface.kind.as_deref() == Some("veth")
    }

    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        Obstacle::of(&self.interface, self.program.as_ref(), self.features, self.driver.as_deref())
    }

    fn is_on_top_of_another(&self) -> bool {
        matches!(self.interface.kind.as_deref(), Some("vlan" | "bridge" | "macvlan" | "ipvlan"))
    }
}

const VETH_MEND: &str = "turn-bpf run --mode tc, which is what it does by itself; or put an XDP program that passes everything on the other end";

// By the drivers' sources, with pages of 4096 bytes.
const LARGEST_MTU: [(&str, u32); 10] = [
    ("bnxt_en", 3502),
    ("ena", 3498),
    ("gve", 2032),
    ("i40e", 3046),
    ("ice", 3046),
    ("ixgbe", 3050),
    ("mana", 3506),
    ("mlx5_core", 3498),
    ("veth", 3520),
    ("virtio_net", 3506),
];
const USUAL_LARGEST_MTU: u32 = 3498;
