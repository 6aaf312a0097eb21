mod network;
mod settings;

use super::super::facts::{
    BpfFilesystem, Channels, Device, Firewall, Free, Hook, InterfaceFacts, Jit, Listener, Memory, Network,
    Rule, Server, Tracking,
};
use super::super::{Outcome, judge};
use super::*;
use crate::{
    host::{KernelRelease, LoadedProgram, OUR_XDP_PROGRAM, Privileges, Process},
    interfaces::{AttachedMode, AttachedXdp, Interface, UnknownInterface},
    xdp_features::XdpFeatures,
};
use Outcome::{Fail, Pass, Skip, Warn};

#[test]
fn a_machine_on_which_all_is_well() {
    let checks = judge(&machine()).checks;
    assert!(checks.iter().all(|check| check.result == Pass && check.mend.is_none()), "{checks:#?}");
    let ids: Vec<_> = checks.iter().map(|check| (check.subject.as_str(), check.id)).collect();
    let expected = [
        ("host", "kernel_version"),
        ("host", "btf"),
        ("host", "jit"),
        ("host", "lockdown"),
        ("host", "memory"),
        ("host", "socket_reports"),
        ("host", "bpf_filesystem"),
        ("host", "privileges"),
        ("eth0", "exists"),
        ("eth0", "up"),
        ("eth0", "ethernet"),
        ("eth0", "driver"),
        ("eth0", "native_xdp"),
        ("eth0", "redirect_target"),
        ("eth0", "mtu"),
        ("eth0", "queues"),
        ("eth0", "hardware_merging"),
        ("eth0", "merged_datagrams"),
        ("eth0", "vlan_stripping"),
        ("eth0", "ports"),
        ("eth0", "gateway"),
        ("eth0", "mode"),
        ("eth0", "xdp_program"),
        ("eth0", "tc_ingress"),
        ("eth0", "tc_egress"),
        ("server", "server"),
        ("host", "rules"),
        ("host", "connection_tracking"),
        ("eth0", "rp_filter"),
    ];
    assert_eq!(ids, expected);
}

/// All checks of an interface that is the only one named.
fn of_interface(facts: &InterfaceFacts) -> Vec<Check> {
    all(&Facts { named: vec![Ok(facts.clone())], ..machine() })
}

#[test]
fn checks_of_the_machine() {
    type Change = fn(&mut Facts);
    let cases: [(&str, Change, Outcome, &str, Option<&str>); 19] = [
        ("lockdown", |f| f.lockdown = None, Pass, "none", None),
        ("lockdown", |f| f.lockdown = Some("confidentiality".into()), Warn, "throw away", Some("integrity")),
        ("memory", |f| f.memory.free = None, Skip, "cannot be told", None),
        (
            "memory",
            |f| f.memory.free = Some(Free { bytes: 32 << 20, of: "the cgroup x".into() }),
            Warn,
            "the maps take 64 MiB for --max-flows 65536, but the cgroup x has 32 MiB left",
            Some("--max-flows 16384"),
        ),
        (
            "socket_reports",
            |f| f.server.sockets_are_told = false,
            Warn,
            "one lease later",
            Some("modprobe udp_diag"),
        ),
        ("server", |f| f.server.sockets_are_told = false, Skip, "does not tell", None),
        (
            "bpf_filesystem",
            |f| f.bpf_filesystem = BpfFilesystem::Absent,
            Warn,
            "--keep",
            Some("mount -t bpf bpf /sys/fs/bpf"),
        ),
        (
            "bpf_filesystem",
            |f| f.bpf_filesystem = BpfFilesystem::ReadOnly,
            Warn,
            "not writable",
            Some("ProtectKernelTunables"),
        ),
        ("kernel_version", |f| f.kernel = release("6.12"), Pass, "6.12; 6.1 or newer is needed", None),
        ("kernel_version", |f| f.kernel = release("6.1"), Pass, "no tcx yet", None),
        ("kernel_version", |f| f.kernel = release("5.19"), Fail, "whose verifier", Some("6.1 or newer")),
        ("kernel_version", |f| f.kernel = None, Warn, "cannot be told", None),
        ("btf", |f| f.has_btf = false, Fail, "/sys/kernel/btf/vmlinux", Some("CONFIG_DEBUG_INFO_BTF=y")),
        ("jit", |f| f.jit = Jit::Off, Warn, "interprets", Some("bpf_jit_enable=1")),
        ("jit", |f| f.jit = Jit::Debugging, Warn, "log", Some("bpf_jit_enable=1")),
        ("jit", |f| f.jit = Jit::Untold, Skip, "first network namespace", None),
        ("privileges", |f| f.privileges.effective = 1 << 21, Fail, "CAP_NET_ADMIN missing", Some("as root")),
        (
            "privileges",
            |f| f.privileges.effective = 0,
            Fail,
            "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON missing",
            Some("AmbientCapabilities="),
        ),
        (
            "privileges",
            |f| f.privileges.is_initial_user_namespace = false,
            Fail,
            "user namespace",
            Some("outside it"),
        ),
    ];
    for (id, change, result, detail, mend) in cases {
        let mut facts = machine();
        change(&mut facts);
        assert_check(&all(&facts), id, result, detail, mend);
    }
}

#[test]
fn checks_of_an_interface() {
    type Change = fn(&mut InterfaceFacts);
    let cases: [(&str, Change, Outcome, &str, Option<&str>); 24] = [
        ("up", |f| f.interface.is_up = false, Fail, "is down", Some("ip link set dev eth0 up")),
        ("ethernet", |f| f.interface.is_ethernet = false, Fail, "other than", Some("below it")),
        ("driver", |f| f.driver = None, Skip, "neither", None),
        ("driver", |f| f.driver = Some("gve".into()), Warn, "GQI", Some("--mode tc")),
        ("native_xdp", |f| f.features = None, Skip, "6.3", None),
        ("native_xdp", |f| f.features = Some(NONE), Warn, "slower", None),
        ("native_xdp", |f| become_kind(f, "vlan", NONE), Warn, "slower", Some("below it")),
        ("native_xdp", |f| become_kind(f, "veth", NONE), Warn, "queues", Some("ethtool -L eth0 rx N")),
        ("redirect_target", |f| f.features = None, Skip, "6.3", None),
        ("redirect_target", |f| f.features = Some(NONE), Warn, "stay with the server", Some("--mode tc")),
        ("redirect_target", |f| f.features = Some(NATIVE), Skip, "only while they have", None),
        ("redirect_target", |f| become_kind(f, "veth", NATIVE), Warn, "other end", Some("--mode tc")),
        ("mtu", |f| f.interface.mtu = 9001, Warn, "ice takes", Some("ip link set dev eth0 mtu 3046")),
        ("mtu", |f| become_driver(f, "hns3", 3498), Pass, "commonly", None),
        ("mtu", |f| become_driver(f, "hns3", 3499), Warn, "commonly", Some("mtu 3498")),
        ("mtu", become_jumbo, Pass, "no limit", None),
        ("mtu", |f| f.features = Some(NONE), Pass, "tc mode takes", None),
        ("xdp_program", |f| attach(f, "xdp_filter"), Warn, "xdp_filter (id 37", Some("eth0 xdpgeneric off")),
        ("mode", |f| attach(f, "xdp_filter"), Warn, "tc: another XDP program is attached: xdp_filter", None),
        ("mode", |f| attach(f, OUR_XDP_PROGRAM), Skip, "status", None),
        ("mode", |f| f.features = Some(NONE), Warn, "tc: its driver has no native XDP", None),
        ("mode", |f| become_kind(f, "bridge", NONE), Warn, "tc: its driver (bridge) has no", None),
        ("mode", |f| f.driver = Some("gve".into()), Warn, "tc: its driver (gve) leaves no room", None),
        ("mode", |f| f.features = None, Pass, "if the driver can", None),
    ];
    for (id, change, result, detail, mend) in cases {
        let mut facts = eth0();
        change(&mut facts);
        assert_check(&of_interface(&facts), id, result, detail, mend);
    }
}

#[test]
fn our_own_program_is_no_other() {
    let mut facts = eth0();
    attach(&mut facts, OUR_XDP_PROGRAM);
    assert_check(&of_interface(&facts), "xdp_program", Pass, "turn-bpf's own", None);
}

#[test]
fn an_interface_that_is_not_there() {
    let unknown = UnknownInterface { name: "eht0".into(), known: vec!["lo".into(), "eth0".into()] };
    let facts = Facts { named: vec![Err(unknown)], ..machine() };
    let checks = all(&facts);
    assert_check(&checks, "exists", Fail, "there are: lo, eth0", Some("name one of these"));
    assert_eq!(checks.iter().filter(|check| check.subject == "eht0").count(), 1, "nothing else is checked");
}

#[test]
fn a_veth_whose_other_end_is_elsewhere() {
    let mut facts = eth0();
    become_kind(&mut facts, "veth", NATIVE);
    let checks = of_interface(&facts);
    assert_check(&checks, "veth_other_end", Warn, "drops", Some("passes everything"));
    let mend = "in the other end's namespace: ethtool -K OTHER_END tx off";
    assert_check(&checks, "veth_checksums", Warn, "(virtual) hardware", Some(mend));
}

#[test]
fn a_veth_whose_other_end_is_here() {
    let mut facts = eth0();
    become_kind(&mut facts, "veth", NATIVE);
    let mut other = Interface { name: "other".into(), ..facts.interface.clone() };
    other.xdp = Some(AttachedXdp { mode: AttachedMode::Generic, program_id: 3 });
    facts.other_end = Some(other.clone());
    let checks = of_interface(&facts);
    assert_check(&checks, "veth_other_end", Warn, "drops", Some("passes everything"));
    assert_check(&checks, "veth_checksums", Warn, "UDP checksums", Some("ethtool -K other tx off"));

    other.xdp = Some(AttachedXdp { mode: AttachedMode::Native, program_id: 3 });
    facts.other_end = Some(other);
    facts.other_end_sums = Some(true);
    assert_check(&of_interface(&facts), "veth_other_end", Pass, "other has a native", None);
    assert_check(&of_interface(&facts), "veth_checksums", Pass, "itself", None);
}

#[track_caller]
fn assert_check(checks: &[Check], id: &str, result: Outcome, detail: &str, mend: Option<&str>) {
    let check =
        checks.iter().find(|check| check.id == id).unwrap_or_else(|| panic!("no {id} in {checks:#?}"));
    assert_eq!(check.result, result, "{check:#?}");
    assert!(check.detail.contains(detail), "{detail:?} is not in {check:#?}");
    match (mend, &check.mend) {
        (None, None) => {}
        (Some(mend), Some(found)) if found.contains(mend) => {}
        _ => panic!("mend is not {mend:?} in {check:#?}"),
    }
}

fn machine() -> Facts {
    let listener = Listener {
        addresses: vec!["198.18.1.1:3478".parse().unwrap()],
        process: Some(Process { pid: 812, command: "turnserver".into() }),
        software: Some("Coturn-4.6.1 'Gorst'".into()),
        other_sockets: 9,
    };
    Facts {
        kernel: release("6.12"),
        has_btf: true,
        jit: Jit::On,
        privileges: Privileges { effective: u64::MAX, is_initial_user_namespace: true },
        named: vec![Ok(eth0())],
        coturn: None,
        lockdown: Some("none".into()),
        memory: Memory {
            needed: 64 << 20,
            free: Some(Free { bytes: 1 << 30, of: "the machine".into() }),
            max_flows: 65_536,
        },
        bpf_filesystem: BpfFilesystem::Writable,
        server: Server {
            port: 3478,
            sockets_are_told: true,
            listener: Some(listener),
            has_tcp: true,
            elsewhere: None,
        },
        firewall: Firewall { rules: Some(Vec::new()), ..Firewall::default() },
        addresses: vec!["198.18.1.1".parse().unwrap()],
    }
}

fn eth0() -> InterfaceFacts {
    let interface = Interface {
        name: "eth0".into(),
        ifindex: 2,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 0, 1]),
        is_up: true,
        has_carrier: true,
        is_ethernet: true,
        kind: None,
        lower_ifindex: None,
        master_ifindex: None,
        xdp: None,
    };
    InterfaceFacts {
        interface,
        driver: Some("ice".into()),
        features: Some(XdpFeatures(NATIVE.0 | XdpFeatures::NDO_XMIT.0)),
        program: None,
        other_end: None,
        other_end_sums: None,
        device: Device {
            offloads: Some(["rx-gro".to_owned()].into()),
            channels: Some(Channels { combined: 4, most_combined: 8 }),
            exceeded: None,
        },
        ingress: Hook { tcx: Some(Vec::new()), filters: Vec::new() },
        egress: Hook { tcx: Some(Vec::new()), filters: Vec::new() },
        network: Network { rp_filter: Some(2), ..Network::default() },
        uppers: Vec::new(),
        master: None,
        fellow_ports: Vec::new(),
        ports: Vec::new(),
        cpus: 4,
    }
}

fn release(version: &str) -> Option<KernelRelease> {
    KernelRelease::parse(version)
}

fn become_jumbo(facts: &mut InterfaceFacts) {
    facts.interface.mtu = 9001;
    facts.features = Some(XdpFeatures(NATIVE.0 | XdpFeatures::RX_SG.0));
}

fn become_kind(facts: &mut InterfaceFacts, kind: &str, features: XdpFeatures) {
    (facts.interface.kind, facts.driver) = (Some(kind.into()), Some(kind.into()));
    facts.features = Some(features);
}

fn become_driver(facts: &mut InterfaceFacts, driver: &str, mtu: u32) {
    (facts.driver, facts.interface.mtu) = (Some(driver.into()), mtu);
}

fn attach(facts: &mut InterfaceFacts, program: &str) {
    facts.interface.xdp = Some(AttachedXdp { mode: AttachedMode::Generic, program_id: 37 });
    facts.program = Some(LoadedProgram { id: 37, name: Some(program.into()), holder: None });
}

const NONE: XdpFeatures = XdpFeatures(0);
const NATIVE: XdpFeatures = XdpFeatures(XdpFeatures::BASIC.0 | XdpFeatures::REDIRECT.0);
