mod namespace;

use super::*;
use crate::attachment::WantedMode;
use crate::interfaces::AttachedXdp;

#[test]
fn interfaces_that_can_be_attached_to_come_back_in_their_order() {
    let names = ["veth0".to_owned(), "eth0".to_owned()];
    let found = facts().judge(&names, WantedMode::Native).unwrap();
    assert_eq!(found.iter().map(|found| &found.interface.name).collect::<Vec<_>>(), ["veth0", "eth0"]);
}

#[test]
fn names_that_are_wrong() {
    assert_eq!(message(&facts(), &["eth0", "eth0"]), "eth0 is given twice; name each interface once");
    assert_eq!(
        message(&facts(), &["eth0", "eth7"]),
        "no network interface is called eth7 here; there are: lo, eth0, veth0"
    );
}

#[test]
fn interfaces_that_are_wrong() {
    let mut facts = facts();
    facts.interfaces[1].is_up = false;
    assert_eq!(message(&facts, &["eth0"]), "eth0 is down; set it up first: ip link set dev eth0 up");

    facts.interfaces[1].is_ethernet = false;
    facts.interfaces[1].kind = Some("tun".into());
    assert_eq!(
        message(&facts, &["eth0"]),
        "eth0 is not an Ethernet interface (tun), and turn-bpf reads Ethernet frames; name the interface below it"
    );
}

#[test]
fn a_host_that_is_wrong() {
    let mut facts = facts();
    facts.has_btf = false;
    assert_eq!(
        message(&facts, &["eth0"]),
        "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing); use one built with CONFIG_DEBUG_INFO_BTF=y, \
         as distributions' are"
    );

    facts.kernel = KernelRelease::parse("5.10.0-35-amd64");
    assert_eq!(
        message(&facts, &["eth0"]),
        "kernel 5.10 is too old: turn-bpf needs 6.1 or newer, whose verifier takes its programs"
    );

    facts.privileges.effective = 1 << 12;
    assert_eq!(
        message(&facts, &["eth0"]),
        "no privilege to load BPF programs and attach them: CAP_BPF, CAP_PERFMON missing; run as root, or have the \
         service give AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON"
    );

    facts.privileges = Privileges { effective: u64::MAX, is_initial_user_namespace: false };
    assert!(
        message(&facts, &["eth0"]).starts_with("no privilege to load BPF programs: this is a user namespace")
    );
}

#[test]
fn a_kernel_whose_version_cannot_be_told_is_tried() {
    let facts = Facts { kernel: None, ..facts() };
    facts.judge(&["eth0".to_owned()], WantedMode::Auto).unwrap();
}

#[test]
fn somebody_is_there_already() {
    let mut facts = facts();
    facts.interfaces[1].xdp = Some(AttachedXdp { mode: AttachedMode::Generic, program_id: 37 });
    assert_eq!(
        message(&facts, &["eth0"]),
        "eth0 already has an XDP program, id 37 (name unknown), generic; stop what attached it, or detach it: \
         ip link set dev eth0 xdpgeneric off; or use --mode tc, which goes beside it"
    );

    let holder = Some(Process { pid: 812, command: "filter".into() });
    let program = LoadedProgram { id: 37, name: Some("xdp_filter".into()), holder };
    facts.programs.insert(37, program.clone());
    facts.interfaces[1].xdp = Some(AttachedXdp { mode: AttachedMode::Native, program_id: 37 });
    assert_eq!(
        message(&facts, &["eth0"]),
        "eth0 already has an XDP program, xdp_filter (id 37, held by filter, pid 812), native; stop what attached \
         it, or detach it: ip link set dev eth0 xdpdrv off; or use --mode tc, which goes beside it"
    );

    let ours = LoadedProgram { name: Some(host::OUR_XDP_PROGRAM.into()), ..program };
    facts.programs.insert(37, ours.clone());
    assert_eq!(
        message(&facts, &["eth0"]),
        "turn-bpf is already attached to eth0 (pid 812) - stop that one first"
    );

    facts.programs.insert(37, LoadedProgram { holder: None, ..ours });
    assert_eq!(
        message(&facts, &["eth0"]),
        "turn-bpf is already attached to eth0 (pid unknown) - stop that one first, or, if none runs, remove what one with \
         --keep has left: turn-bpf detach, with the same --pin-dir"
    );
    facts.judge(&["veth0".to_owned()], WantedMode::Auto).unwrap();
}

#[test]
fn native_mode_where_the_driver_has_none() {
    let mut facts = facts();
    let (lo, eth0) = (["lo".to_owned()], ["eth0".to_owned()]);
    facts.judge(&lo, WantedMode::Auto).unwrap();
    assert_eq!(
        facts.judge(&lo, WantedMode::Native).unwrap_err().to_string(),
        "the driver of lo has no native XDP (it offers: none); use --mode auto or --mode tc"
    );
    facts.features.clear();
    facts.judge(&lo, WantedMode::Native).expect("a kernel before 6.3 does not tell");
    facts.judge(&eth0, WantedMode::Native).unwrap();
}

#[test]
fn what_keeps_native_mode_away_is_no_error_where_another_will_do() {
    let mut facts = facts();
    let (lo, eth0) = (["lo".to_owned()], ["eth0".to_owned()]);
    let obstacle = |facts: &Facts, names: &[String], wanted| {
        let found = facts.judge(names, wanted).unwrap().remove(0);
        found.obstacle.map(|obstacle| obstacle.to_string())
    };
    for wanted in [WantedMode::Auto, WantedMode::Tc] {
        assert_eq!(obstacle(&facts, &eth0, wanted), None);
        assert_eq!(obstacle(&facts, &lo, wanted).unwrap(), "its driver has no native XDP");
    }
    facts.drivers.insert(2, "gve".into());
    assert_eq!(
        obstacle(&facts, &eth0, WantedMode::Auto).unwrap(),
        "its driver (gve) leaves no room before a frame"
    );
    facts.judge(&eth0, WantedMode::Native).expect("with other queues it may");

    facts.interfaces[1].xdp = Some(AttachedXdp { mode: AttachedMode::Native, program_id: 37 });
    for wanted in [WantedMode::Auto, WantedMode::Tc] {
        assert_eq!(
            obstacle(&facts, &eth0, wanted).unwrap(),
            "another XDP program is attached: id 37 (name unknown), native"
        );
    }
    for wanted in [WantedMode::Native, WantedMode::Generic] {
        let error = facts.judge(&eth0, wanted).unwrap_err();
        assert!(matches!(error, PreflightError::OtherProgram { .. }), "{error}");
    }
}

#[test]
fn another_turn_bpf_at_tc() {
    let mut facts = facts();
    let holder = Some(Process { pid: 812, command: "turn-bpf".into() });
    let program = LoadedProgram { id: 37, name: Some("turn_bpf_ingres".into()), holder };
    facts.ours_at_tc.insert(2, program);
    for wanted in [WantedMode::Auto, WantedMode::Native, WantedMode::Tc, WantedMode::Generic] {
        let error = facts.judge(&["eth0".to_owned()], wanted).unwrap_err();
        assert_eq!(error.to_string(), "turn-bpf is already attached to eth0 (pid 812) - stop that one first");
    }
    facts.judge(&["veth0".to_owned()], WantedMode::Tc).unwrap();
}

fn message(facts: &Facts, names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    facts.judge(&names, WantedMode::Generic).unwrap_err().to_string()
}

fn facts() -> Facts {
    let interface = |name: &str, ifindex, kind: Option<&str>| Interface {
        name: name.into(),
        ifindex,
        mtu: 1500,
        mac: Some([2, 0, 0, 0, 0, ifindex as u8]),
        is_up: true,
        has_carrier: true,
        is_ethernet: true,
        kind: kind.map(str::to_owned),
        lower_ifindex: None,
        master_ifindex: None,
        xdp: None,
    };
    let native = XdpFeatures(XdpFeatures::BASIC.0 | XdpFeatures::REDIRECT.0);
    Facts {
        kernel: KernelRelease::parse("6.12.0"),
        has_btf: true,
        privileges: Privileges { effective: u64::MAX, is_initial_user_namespace: true },
        interfaces: vec![
            interface("lo", 1, None),
            interface("eth0", 2, None),
            interface("veth0", 3, Some("veth")),
        ],
        programs: BTreeMap::new(),
        features: [(1, XdpFeatures::default()), (2, native), (3, native)].into(),
        drivers: BTreeMap::new(),
        ours_at_tc: BTreeMap::new(),
    }
}
