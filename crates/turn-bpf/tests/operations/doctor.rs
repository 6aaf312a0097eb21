//! `turn-bpf doctor`: conditions that are really there, and what it says before, meanwhile, and after the command that it gives.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use turn_bpf::doctor::footprint;
use turn_testkit::lab::{EgressProgram, Namespace, XdpMode};
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::scratch::ScratchFolder;

use crate::options;

const BINARY: &str = env!("CARGO_BIN_EXE_turn-bpf");

/// What the doctor says of one check, in a namespace.
#[derive(Debug)]
struct Said {
    result: String,
    detail: String,
    mend: String,
    exit: Option<i32>,
}

fn ask(namespace: &Namespace, interfaces: &[&str], id: &str, subject: &str) -> Said {
    said(
        namespace.command(BINARY).arg("doctor").args(interfaces).arg("--json").output().unwrap(),
        id,
        subject,
    )
}

fn said(output: Output, id: &str, subject: &str) -> Said {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let check = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["id"] == id && check["subject"] == subject);
    let check = check.unwrap_or_else(|| panic!("no {id} of {subject} in {report:#}"));
    let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
    Said { result: text("result"), detail: text("detail"), mend: text("mend"), exit: output.status.code() }
}

/// A lab whose server is the doctor's machine.
struct Ward {
    offload: Offload,
}

impl Ward {
    fn new() -> Self {
        Self { offload: options().far_ends_without_program().start_without_daemon() }
    }

    fn server(&self) -> &Namespace {
        &self.offload.lab.server
    }

    fn run(&self, command: &str) {
        self.server().run("sh", &["-ec", command]).unwrap();
    }

    fn srv0(&self, id: &str) -> Said {
        ask(self.server(), &["srv0"], id, "srv0")
    }

    fn host(&self, id: &str) -> Said {
        ask(self.server(), &["srv0"], id, "host")
    }

    /// A condition comes, is seen, and goes with the command that the doctor gives for it: the mend, behind this mark.
    fn mends(&self, ask: impl Fn() -> Said, harm: &str, seen: &str, mark: &str) {
        assert_eq!(ask().result, "PASS", "before {harm}: {:?}", ask());
        self.run(harm);
        let said = ask();
        assert!(said.result == "WARN" && said.detail.contains(seen), "after {harm}: {said:?}");
        let (_, command) = said.mend.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {said:?}"));
        self.run(
            &format!("{mark}{command}").replace("if that matters: ", "").replace("to be rid of them: ", ""),
        );
        assert_eq!(ask().result, "PASS", "after {command}: {:?}", ask());
    }
}

#[test]
fn what_is_set_wrong_is_seen_and_mended() {
    let ward = Ward::new();
    let down = || ward.srv0("up");
    assert_eq!((down().result.as_str(), down().exit), ("PASS", Some(0)));
    ward.run("ip link set srv0 down");
    assert_eq!((down().result.as_str(), down().exit), ("FAIL", Some(1)));
    ward.run(&down().mend);
    assert_eq!((down().result.as_str(), down().exit), ("PASS", Some(0)));

    let filter = "tc qdisc add dev srv0 clsact; tc filter add dev srv0 HOOK bpf bytecode '1,6 0 0 4294967295,' flowid 1:1";
    for hook in ["egress", "ingress"] {
        let harm = filter.replace("HOOK", hook);
        ward.mends(|| ward.srv0(&format!("tc_{hook}")), &harm, "bpf", "if that matters: ");
        ward.run("tc qdisc del dev srv0 clsact");
    }
    ward.run("nft add table inet t; nft add chain inet t c '{ type filter hook input priority 0; }'");
    let limit = "nft add rule inet t c udp dport 49152-65535 limit rate over 1000/second drop";
    ward.mends(|| ward.host("rules"), limit, "inet t c handle 2 (drop, limit)", "to be rid of them: ");
    for harmless in
        ["tcp dport 22 drop", "udp dport 53 drop", "udp dport 3478 counter accept", "ct state invalid drop"]
    {
        ward.run(&format!("nft add rule inet t c {harmless}"));
        assert_eq!(ward.host("rules").result, "PASS", "{harmless}");
    }
    let forget = "echo 2 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout";
    let mark = "sysctl -w ";
    ward.mends(|| ward.host("connection_tracking"), forget, "forgotten after 2 s", mark);
}

#[test]
fn programs_of_others_are_seen() {
    let ward = Ward::new();
    let result = |id: &str| ward.srv0(id).result;
    assert_eq!([result("xdp_program"), result("tc_egress")], ["PASS", "PASS"]);
    let xdp = ward.server().attach_pass("srv0", XdpMode::Generic).unwrap();
    assert_eq!([result("xdp_program"), result("mode")], ["WARN", "WARN"]);
    // turn-bpf goes to TC then, where datagrams may have been merged.
    let harm = "ethtool -K srv0 rx-udp-gro-forwarding on";
    ward.mends(|| ward.srv0("merged_datagrams"), harm, "tc mode", "ethtool -K ");
    drop(xdp);
    // The kernel detaches what has no owner any more a moment later.
    wait_until("the program is detached", || result("xdp_program") == "PASS");
    ward.run(harm);
    assert_eq!(result("merged_datagrams"), "PASS", "a native program comes before that");

    let egress = ward.server().attach_egress("srv0", EgressProgram::First).unwrap();
    let said = ward.srv0("tc_egress");
    assert!(said.result == "WARN" && said.detail.contains("in front"), "{said:?}");
    drop(egress);
    wait_until("the program is detached", || result("tc_egress") == "PASS");
}

#[test]
fn what_is_around_an_interface_is_seen() {
    let ward = Ward::new();
    let gateway = || ward.srv0("gateway");
    assert_eq!(gateway().result, "PASS");
    ward.run("ip route add default via 198.18.1.99");
    let socket = ward.server().udp_socket("198.18.1.1:0".parse().unwrap()).unwrap();
    socket.send_to(b"to nobody", "203.0.113.1:9").unwrap();
    wait_until("the kernel has asked for the gateway", || gateway().result == "WARN");
    assert!(gateway().detail.contains("198.18.1.99"), "{:?}", gateway());
    ward.run("ip route del default");
    assert_eq!(gateway().result, "PASS");

    // A host behind srv1 sends by an address of the network behind srv0.
    ward.run("for i in all srv1; do echo 1 > /proc/sys/net/ipv4/conf/$i/rp_filter; done");
    let filter = || ask(ward.server(), &["srv1"], "rp_filter", "srv1");
    assert_eq!(filter().result, "PASS", "{:?}", filter());
    let peer = &ward.offload.lab.peer;
    peer.run("ip", &["address", "add", "198.18.1.77/32", "dev", "lo"]).unwrap();
    let spoof = peer.udp_socket("198.18.1.77:0".parse().unwrap()).unwrap();
    // The filter is for ARP requests, too.
    let honest = peer.udp_socket("198.18.2.2:0".parse().unwrap()).unwrap();
    wait_until("the filter has thrown something away", || {
        honest.send_to(b"so that the server's host is known", "198.18.2.1:9").unwrap();
        spoof.send_to(b"by another way", "198.18.2.1:9").unwrap();
        filter().result == "WARN"
    });
    ward.run(&filter().mend);
    assert_eq!(filter().result, "PASS", "{:?}", filter());

    // A bridge with both of the server's interfaces.
    let ports = |interfaces: &[&str]| ask(ward.server(), interfaces, "ports", interfaces[0]);
    assert_eq!(ports(&["srv0"]).result, "PASS");
    ward.run("ip link add br0 type bridge; ip link set srv0 master br0; ip link set srv1 master br0");
    let said = ports(&["srv0"]);
    assert!(said.result == "WARN" && said.mend == "turn-bpf run srv0 srv1", "{said:?}");
    assert_eq!(ports(&["srv0", "srv1"]).result, "PASS");
    let said = ports(&["br0"]);
    assert!(said.result == "WARN" && said.mend == "turn-bpf run srv0 srv1", "{said:?}");
    ward.run("ip link del br0");
    assert_eq!(ports(&["srv0"]).result, "PASS");
}

#[test]
fn the_server_is_found_here_and_in_another_namespace() {
    let mut ward = Ward::new();
    let pid = ward.offload.coturn().id();
    let said = ask(ward.server(), &["srv0"], "server", "server");
    assert_eq!(said.result, "PASS", "{said:?}");
    for part in [format!("turnserver, pid {pid}, listens"), "198.18.1.1:3478".into(), "Coturn-4".into()] {
        assert!(said.detail.contains(&part), "{said:?}");
    }
    let config = ask(ward.server(), &["srv0"], "config", "coturn");
    assert!(config.result == "PASS" && config.detail.contains(&format!("pid {pid}")), "{config:?}");

    let elsewhere = ask(&ward.offload.lab.client, &["cli0"], "server", "server");
    assert!(elsewhere.result == "WARN" && elsewhere.detail.contains("network namespace"), "{elsewhere:?}");
    let (nsenter, _) = elsewhere.mend.split_once(" turn-bpf").unwrap();
    let mut words = nsenter.split(' ');
    let mut command = Command::new(words.next().unwrap());
    let there = command.args(words).args([BINARY, "doctor", "srv0", "--json"]).output().unwrap();
    assert_eq!(said_result(there, "server", "server"), "PASS");

    ward.offload.take_coturn().kill().unwrap();
    let said = ask(ward.server(), &["srv0"], "server", "server");
    assert!(said.result == "WARN" && said.detail.contains("nobody listens"), "{said:?}");
}

fn said_result(output: Output, id: &str, subject: &str) -> String {
    said(output, id, subject).result
}

/// `ip netns exec` gives a namespace a /sys of its own, with nothing mounted in it.
#[test]
fn the_bpf_filesystem_can_be_mounted() {
    let ward = Ward::new();
    let absent = ward.host("bpf_filesystem");
    assert_eq!(absent.result, "WARN", "{absent:?}");
    let script = format!("{} && exec {BINARY} doctor srv0 --json", absent.mend);
    let mounted = ward.server().command("sh").args(["-ec", &script]).output().unwrap();
    assert_eq!(said_result(mounted, "bpf_filesystem", "host"), "PASS");
}

/// The kernel's own sum for each map is in its descriptor's fdinfo.
#[test]
fn the_maps_take_what_the_doctor_says() {
    let mut offload = options().daemon(&["--max-flows", "65536"]).start();
    let pid = offload.daemon().process().id();
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    let (charged, said) = (maps.values().sum::<u64>(), footprint(65_536));
    let difference = charged.abs_diff(said) as f64 / charged as f64;
    assert!(difference < 0.1, "charged {charged}, said {said}: {maps:?}");
}

#[test]
fn the_doctor_reads_a_configuration_of_coturn() {
    let folder = ScratchFolder::new("doctor").unwrap();
    let path = folder.path().join("turnserver.conf");
    fs::write(&path, "listening-port=3478\nmax-bps=650000\nmobility\n").unwrap();
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["doctor", "--coturn-config"]).arg(&path).args(arguments).output().unwrap()
    };
    let output = doctor(&["--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results: Vec<_> = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["subject"] == "coturn")
        .map(|check| [&check["id"], &check["result"]].map(|text| text.as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        ["config", "PASS"],
        ["max_bps", "WARN"],
        ["bps_capacity", "PASS"],
        ["multiplex_peer", "PASS"],
        ["mobility", "WARN"],
        ["listeners", "PASS"],
        ["ports", "PASS"],
        ["external_ip", "PASS"],
    ];
    assert_eq!(results, expected);
    let text = String::from_utf8_lossy(&doctor(&["lo"]).stdout).into_owned();
    assert!(text.contains("--max-rate 650000") && text.contains("lo "), "{text}");
    for heading in
        ["\nKernel\n", "\nPrivileges\n", "\nInterface\n", "\nCoexistence\n", "\nServer\n", "\nFirewall\n"]
    {
        assert!(text.contains(heading), "{text}");
    }

    fs::remove_file(&path).unwrap();
    assert_eq!(doctor(&[]).status.code(), Some(1));
}
