//! Of what an interface and its driver are set to, and what is on top of it and behind it.

use std::net::IpAddr;

use super::super::Check;
use super::super::facts::{Channels, InterfaceFacts};

/// By the drivers' sources: ena_xdp_set and gve_xdp_set want a transmit queue for XDP beside each pair; virtnet_xdp_set wants one for
/// each CPU, and has them share with a lock where there are fewer.
pub fn queues(facts: &InterfaceFacts) -> Check {
    let (check, name) = (facts.check("queues"), &facts.interface.name);
    let Some(channels) = facts.device.channels.filter(|channels| channels.most_combined > 0) else {
        return check.skip("the driver has no pairs of queues to choose the number of");
    };
    let Channels { combined, most_combined } = channels;
    let found = format!("{combined} of {most_combined} pairs of queues");
    match facts.driver.as_deref() {
        Some(driver @ ("ena" | "gve")) if combined > most_combined / 2 => check.warn(
            format!("{found}: {driver} takes native programs with half of them at the most, else tc mode, which is slower"),
            format!("ethtool -L {name} combined {}", (most_combined / 2).max(1)),
        ),
        Some("virtio_net") if combined.saturating_add(facts.cpus) > most_combined => {
            let fewer = most_combined.saturating_sub(facts.cpus);
            let detail = format!(
                "{found}, and {} CPUs: virtio_net has none left for XDP to transmit by, so that CPUs wait for each other",
                facts.cpus
            );
            match fewer {
                0 => check.warn(detail, "give the virtual machine twice as many queues as CPUs"),
                _ => check.warn(detail, format!("ethtool -L {name} combined {fewer}")),
            }
        }
        _ => check.pass(found),
    }
}

/// virtnet_xdp_set, mlx5e_xdp_set and others refuse a program while the hardware merges packets.
pub fn hardware_merging(facts: &InterfaceFacts) -> Check {
    let (check, name) = (facts.check("hardware_merging"), &facts.interface.name);
    let on: Vec<_> = [("rx-lro", "lro"), ("rx-gro-hw", "rx-gro-hw")]
        .into_iter()
        .filter(|(offload, _)| facts.device.has(offload))
        .collect();
    if facts.device.offloads.is_none() {
        return check.skip("the kernel does not tell");
    }
    if on.is_empty() {
        return check.pass("the hardware merges no packets (LRO, GRO)");
    }
    let [offloads, switches] = [0, 1].map(|which| {
        let words = on.iter().map(
            |(offload, switch)| if which == 0 { (*offload).to_owned() } else { format!("{switch} off") },
        );
        words.collect::<Vec<_>>()
    });
    check.warn(
        format!(
            "{}: the hardware merges packets, and drivers such as virtio_net and mlx5_core then refuse native programs: tc mode, \
             which is slower",
            offloads.join(", ")
        ),
        format!("ethtool -K {name} {}", switches.join(" ")),
    )
}

/// What was merged has the headers of one datagram only. A native program comes before the merging.
pub fn merged_datagrams(facts: &InterfaceFacts) -> Check {
    let (check, name) = (facts.check("merged_datagrams"), &facts.interface.name);
    if facts.device.offloads.is_none() {
        return check.skip("the kernel does not tell");
    }
    let offloads = ["rx-udp-gro-forwarding", "rx-gro-list"];
    let on: Vec<_> = offloads.into_iter().filter(|offload| facts.device.has(offload)).collect();
    if on.is_empty() {
        return check.pass("UDP datagrams are not merged on receipt");
    }
    if facts.obstacle().is_none() && facts.features.is_some() {
        return check
            .pass(format!("{}; a native program sees datagrams before they are merged", on.join(", ")));
    }
    check.warn(
        format!("{}: datagrams that are merged on receipt are left to the server in tc mode", on.join(", ")),
        format!(
            "ethtool -K {name} {}",
            on.iter().map(|offload| format!("{offload} off")).collect::<Vec<_>>().join(" ")
        ),
    )
}

pub fn vlan_stripping(facts: &InterfaceFacts) -> Check {
    let (check, name) = (facts.check("vlan_stripping"), &facts.interface.name);
    let vlans: Vec<_> = facts.uppers.iter().filter(|upper| upper.kind.as_deref() == Some("vlan")).collect();
    let names = vlans.iter().map(|vlan| vlan.name.as_str()).collect::<Vec<_>>().join(", ");
    if facts.device.offloads.is_none() {
        return check.skip("the kernel does not tell");
    }
    match (vlans.is_empty(), facts.device.has("rx-vlan-hw-parse")) {
        (true, _) => check.pass("no VLAN is on top of it"),
        (false, false) => check.pass(format!("{names}: the device leaves tags in the frames, where they are seen")),
        (false, true) => check.warn(
            format!(
                "{names}: the device takes the tags off frames before a native program sees them, so that VLANs with the same \
                 addresses cannot be told apart"
            ),
            format!("ethtool -K {name} rxvlan off"),
        ),
    }
}

/// Frames of a bond or bridge come by any of its ports.
pub fn ports(facts: &InterfaceFacts, named: &[&str]) -> Check {
    let check = facts.check("ports");
    if !facts.ports.is_empty() {
        let command = format!("turn-bpf run {}", facts.ports.join(" "));
        return check.warn(
            format!(
                "its frames come and go by its ports ({}), whose drivers are the faster place",
                facts.ports.join(", ")
            ),
            command,
        );
    }
    let Some(master) = &facts.master else { return check.pass("is no port of a bond or bridge") };
    let kind = master.kind.as_deref().unwrap_or("device");
    let unnamed: Vec<_> =
        facts.fellow_ports.iter().map(String::as_str).filter(|port| !named.contains(port)).collect();
    match unnamed.is_empty() {
        true => {
            check.pass(format!("a port of the {kind} {}, and all of its other ports are named", master.name))
        }
        false => check.warn(
            format!(
                "a port of the {kind} {}: what comes by its other ports ({}) is left to the server",
                master.name,
                unnamed.join(", ")
            ),
            format!("turn-bpf run {} {}", named.join(" "), unnamed.join(" ")),
        ),
    }
}

pub fn gateway(facts: &InterfaceFacts) -> Check {
    let check = facts.check("gateway");
    let text =
        |addresses: &[IpAddr]| addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let network = &facts.network;
    match network.silent_gateways.first() {
        None if network.gateways.is_empty() => check.pass("no default route leads by it"),
        None => check.pass(format!("{} can be reached, as far as was tried", text(&network.gateways))),
        Some(first) => check.warn(
            format!(
                "{} does not answer, so that nothing gets to clients and peers that are further away",
                text(&network.silent_gateways)
            ),
            format!("ip neigh show dev {}; ping {first}", facts.interface.name),
        ),
    }
}

/// What an EC2 instance may do does not depend on how fast it would be.
pub fn allowances(facts: &InterfaceFacts) -> Check {
    let check = facts.check("allowances");
    let Some(exceeded) = &facts.device.exceeded else {
        return check
            .skip("ethtool -S does not show the driver's counters (Debian: apt-get install ethtool)");
    };
    if exceeded.is_empty() {
        return check.pass("no packet was dropped or queued for the instance's limits");
    }
    let counters =
        exceeded.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ");
    check.warn(
        format!(
            "{counters}: packets beyond what the instance is allowed, dropped or queued, whoever relays them"
        ),
        "a larger instance; conntrack_allowance_exceeded also ends with security groups that track nothing",
    )
}
