//! What interfaces are set to, and what is attached to them.

use super::*;

#[test]
fn checks_of_settings() {
    type Change = fn(&mut InterfaceFacts);
    let cases: [(&str, Change, Outcome, &str, Option<&str>); 27] = [
        ("queues", |f| f.device.channels = None, Skip, "no pairs", None),
        ("queues", |f| become_virtual(f, "ena", 4, 8), Pass, "4 of 8", None),
        ("queues", |f| become_virtual(f, "ena", 5, 8), Warn, "half", Some("ethtool -L eth0 combined 4")),
        ("queues", |f| become_virtual(f, "gve", 8, 8), Warn, "half", Some("ethtool -L eth0 combined 4")),
        ("queues", |f| become_virtual(f, "ena", 1, 1), Warn, "half", Some("combined 1")),
        ("queues", |f| become_virtual(f, "virtio_net", 4, 8), Pass, "4 of 8", None),
        (
            "queues",
            |f| become_virtual(f, "virtio_net", 5, 8),
            Warn,
            "wait",
            Some("ethtool -L eth0 combined 4"),
        ),
        ("queues", |f| become_virtual(f, "virtio_net", 2, 2), Warn, "wait", Some("twice as many")),
        ("hardware_merging", |f| f.device.offloads = None, Skip, "not tell", None),
        ("hardware_merging", |f| turn_on(f, &["rx-lro"]), Warn, "rx-lro", Some("ethtool -K eth0 lro off")),
        (
            "hardware_merging",
            |f| turn_on(f, &["rx-gro-hw", "rx-lro"]),
            Warn,
            "virtio_net",
            Some("ethtool -K eth0 lro off rx-gro-hw off"),
        ),
        ("merged_datagrams", |f| f.device.offloads = None, Skip, "not tell", None),
        ("merged_datagrams", |f| turn_on(f, &["rx-gro-list"]), Pass, "before they are merged", None),
        (
            "merged_datagrams",
            |f| {
                turn_on(f, &["rx-gro-list", "rx-udp-gro-forwarding"]);
                f.features = Some(NONE);
            },
            Warn,
            "left to the server in tc mode",
            Some("ethtool -K eth0 rx-udp-gro-forwarding off rx-gro-list off"),
        ),
        ("vlan_stripping", |f| turn_on(f, &["rx-vlan-hw-parse"]), Pass, "no VLAN", None),
        (
            "vlan_stripping",
            |f| f.uppers = vec![upper("eth0.5", "vlan")],
            Pass,
            "eth0.5: the device leaves",
            None,
        ),
        ("vlan_stripping", |f| f.uppers = vec![upper("ipvl0", "ipvlan")], Pass, "no VLAN", None),
        (
            "vlan_stripping",
            |f| {
                turn_on(f, &["rx-vlan-hw-parse"]);
                f.uppers = vec![upper("eth0.5", "vlan"), upper("eth0.6", "vlan")];
            },
            Warn,
            "eth0.5, eth0.6: the device takes",
            Some("ethtool -K eth0 rxvlan off"),
        ),
        (
            "ports",
            |f| f.ports = vec!["eth1".into(), "eth2".into()],
            Warn,
            "by its ports (eth1, eth2)",
            Some("turn-bpf run eth1 eth2"),
        ),
        (
            "ports",
            |f| {
                f.master = Some(upper("bond0", "bond"));
                f.fellow_ports = vec!["eth1".into()];
            },
            Warn,
            "a port of the bond bond0",
            Some("turn-bpf run eth0 eth1"),
        ),
        ("ports", |f| f.master = Some(upper("br0", "bridge")), Pass, "a port of the bridge br0", None),
        (
            "gateway",
            |f| f.network.gateways = vec!["198.18.1.254".parse().unwrap()],
            Pass,
            "198.18.1.254 can be reached",
            None,
        ),
        (
            "gateway",
            |f| f.network.silent_gateways = vec!["198.18.1.254".parse().unwrap()],
            Warn,
            "does not answer",
            Some("ping 198.18.1.254"),
        ),
        ("allowances", |f| become_virtual(f, "ena", 4, 8), Skip, "ethtool -S", None),
        ("allowances", |f| exceed(f, vec![]), Pass, "no packet", None),
        (
            "allowances",
            |f| exceed(f, vec![("pps_allowance_exceeded".into(), 7)]),
            Warn,
            "exceeded 7",
            Some("larger"),
        ),
        ("mode", |f| f.features = Some(NONE), Warn, "tc", None),
    ];
    for (id, change, result, detail, mend) in cases {
        let mut facts = eth0();
        change(&mut facts);
        assert_check(&of_interface(&facts), id, result, detail, mend);
    }
}

#[test]
fn a_port_whose_fellows_are_all_named_is_well() {
    let port = |name: &str, fellow: &str| {
        let mut facts = eth0();
        (facts.interface.name, facts.fellow_ports) = (name.into(), vec![fellow.into()]);
        facts.master = Some(upper("bond0", "bond"));
        facts
    };
    let named = vec![Ok(port("eth0", "eth1")), Ok(port("eth1", "eth0"))];
    let checks = all(&Facts { named, ..machine() });
    assert_check(&checks, "ports", Pass, "all of its other ports are named", None);
}

#[test]
fn programs_and_filters_of_others() {
    let program = |name: &str| LoadedProgram { id: 7, name: Some(name.into()), holder: None };
    let hook = |names: &[&str], filters: &[&str]| Hook {
        tcx: Some(names.iter().map(|name| program(name)).collect()),
        filters: filters.iter().map(|name| (*name).to_owned()).collect(),
    };
    let cases = [
        (hook(&["turn_bpf_egress"], &[]), Pass, "nobody else", None),
        (
            hook(&["cil_to_netdev"], &[]),
            Warn,
            "cil_to_netdev (id 7) in front",
            Some("bpftool net show dev eth0"),
        ),
        (hook(&["cil_to_netdev", "turn_bpf_egress"], &[]), Warn, "TCX_NEXT", Some("bpftool")),
        (hook(&["turn_bpf_egress", "last"], &[]), Warn, "last (id 7) at TC", Some("bpftool")),
        (hook(&["turn_bpf_egress"], &["u32"]), Warn, "u32 at TC", Some("tc filter del dev eth0 egress")),
        (Hook { tcx: None, filters: vec!["bpf turn_bpf_egress".into()] }, Pass, "nobody else", None),
    ];
    for (egress, result, detail, mend) in cases {
        let facts = InterfaceFacts { egress, ..eth0() };
        assert_check(&of_interface(&facts), "tc_egress", result, detail, mend);
    }
    let ingress = hook(&[], &["matchall"]);
    let checks = of_interface(&InterfaceFacts { ingress, ..eth0() });
    assert_check(&checks, "tc_ingress", Warn, "matchall at TC", Some("tc filter del dev eth0 ingress"));
}

fn become_virtual(facts: &mut InterfaceFacts, driver: &str, combined: u32, most_combined: u32) {
    facts.driver = Some(driver.into());
    facts.device.channels = Some(Channels { combined, most_combined });
}

fn exceed(facts: &mut InterfaceFacts, exceeded: Vec<(String, u64)>) {
    become_virtual(facts, "ena", 4, 8);
    facts.device.exceeded = Some(exceeded);
}

fn turn_on(facts: &mut InterfaceFacts, offloads: &[&str]) {
    facts.device.offloads = Some(offloads.iter().map(|offload| (*offload).to_owned()).collect());
}

fn upper(name: &str, kind: &str) -> Interface {
    Interface { name: name.into(), kind: Some(kind.into()), ..eth0().interface }
}
