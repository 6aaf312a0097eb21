//! `turn-bpf doctor --probe`, from the client's machine through a stock coturn on another.

use std::fs;
use std::net::SocketAddr;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;
use turn_testkit::coturn::{PASSWORD, USER};
use turn_testkit::lab::{Family, Namespace};
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::scratch::ScratchFolder;

use crate::options;

/// A probe from a namespace, with the password in the environment.
fn probe(from: &Namespace, server: SocketAddr, arguments: &[&str]) -> Output {
    let mut command = from.command(env!("CARGO_BIN_EXE_turn-bpf"));
    command.args(["doctor", "--probe", &format!("turn:{server}"), "--user", USER]);
    command.env("TURN_BPF_PASSWORD", PASSWORD).args(arguments).output().unwrap()
}

fn probe_json(from: &Namespace, server: SocketAddr, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = probe(from, server, &[arguments, &["--json"]].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let json = serde_json::from_str(&text);
    (output.status.code(), json.unwrap_or_else(|error| panic!("{error}: {text:?} {output:?}")))
}

fn client_of(offload: &Offload) -> &Namespace {
    &offload.lab.client
}

#[test]
fn a_call_from_another_machine_is_relayed_in_the_kernel() {
    let offload = options().start();
    let control = offload.control();
    for family in [Family::V4, Family::V6] {
        let server = offload.listener_of(family);
        let arguments = ["--count", "300", "--rate", "100", "--control", control.to_str().unwrap()];
        let (code, report) = probe_json(client_of(&offload), server, &arguments);
        assert_eq!((code, &report["works"]), (Some(0), &true.into()), "{report:#}\n{}", offload.log());
        let figures = &report["figures"];
        for count in ["sent", "at_peer", "returned"] {
            assert_eq!(figures[count], 300, "{report:#}");
        }
        assert_eq!(figures["loss"], 0.0);
        let time = |name: &str| figures["round_trip"][name].as_u64().unwrap();
        let times = ["min_us", "median_us", "p95_us", "p99_us", "max_us"].map(time);
        assert!(times.is_sorted() && times[0] > 0, "{report:#}");
        let [kernel, spilled] = ["kernel_packets", "spilled_packets"]
            .map(|name| report["kernel"][name].as_u64().unwrap_or_else(|| panic!("{report:#}")));
        // Both ways; the first ones may come before turn-bpf knows the session.
        let counted = kernel + spilled;
        assert!((580..=600).contains(&counted), "{report:#}");
        let share = report["kernel"]["share"].as_f64().unwrap();
        assert!(share > 0.8 && (share - kernel as f64 / counted as f64).abs() < 1e-9, "{report:#}");
        assert!(report["software"].as_str().unwrap().contains("oturn"), "{report:#}");
        wait_until("the allocation was given back", || offload.sessions().is_empty());
        assert!(offload.log().contains("reason=refreshed_to_zero"), "{}", offload.log());
    }
    let arguments = ["--count", "50", "--rate", "100", "--control", control.to_str().unwrap()];
    let output = probe(client_of(&offload), offload.listener(), &arguments);
    let [table, progress] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(table.contains("in the kernel") && table.ends_with("PASS           a call works\n"), "{table}");
    assert!(progress.contains("turn-bpf sessions --client 198.18.1.2:"), "{progress}");
}

#[test]
fn without_the_daemon_it_says_how_to_see_the_share() {
    let offload = options().start();
    let arguments = ["--count", "20", "--rate", "200", "--control", "/nonexistent/control.sock"];
    let (code, report) = probe_json(client_of(&offload), offload.listener(), &arguments);
    assert_eq!((code, &report["figures"]["returned"]), (Some(0), &20.into()), "{report:#}");
    let unknown = report["kernel"]["unknown"].as_str().unwrap();
    let client = report["ends"]["client"].as_str().unwrap();
    assert!(unknown.contains(&format!("sessions --client {client}")), "{unknown}");
}

#[test]
fn on_the_servers_own_machine_it_says_that_nothing_can_be_relayed_in_the_kernel() {
    let offload = options().start();
    let control = offload.control();
    let arguments = ["--count", "50", "--rate", "200", "--control", control.to_str().unwrap()];
    let server = &offload.lab.server;
    let (code, report) = probe_json(server, offload.listener(), &arguments);
    assert_eq!((code, &report["is_own_machine"]), (Some(0), &true.into()), "{report:#}");
    assert_eq!(report["figures"]["returned"], 50);
    let table = probe(server, offload.listener(), &arguments);
    let table = String::from_utf8_lossy(&table.stdout);
    assert!(table.contains("probe from another machine"), "{table}");
}

#[test]
fn what_the_server_refuses_is_said_in_words() {
    let refusals: [(&[&str], &[&str], u16, &str); 3] = [
        (&[], &["--password", "wrong"], 401, "password is wrong"),
        (&["--total-quota=1"], &[], 486, "user-quota, total-quota"),
        (&["--denied-peer-ip=198.18.1.0-198.18.1.255"], &[], 403, "denied-peer-ip"),
    ];
    for (coturn, arguments, code, words) in refusals {
        let offload = options().coturn(coturn).start_without_daemon();
        let other = (code == 486).then(|| offload.allocated_client());
        let begin = Instant::now();
        let mut all = vec!["--count", "5"];
        all.extend(arguments);
        let (exit, report) = probe_json(client_of(&offload), offload.listener(), &all);
        assert_eq!((exit, &report["works"]), (Some(1), &false.into()), "{report:#}");
        assert_eq!(report["error"]["code"], code, "{report:#}");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert!(begin.elapsed() < Duration::from_secs(8), "it was said at once: {code}");
        drop(other);
    }
}

#[test]
fn a_server_that_does_not_answer_is_told_from_one_that_is_not_there() {
    let offload = options().without_coturn().start_without_daemon();
    let fails = |words: &str| {
        let (code, report) = probe_json(client_of(&offload), offload.listener(), &["--count", "5"]);
        assert_eq!(code, Some(1), "{report:#}");
        let message = report["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    };
    fails("nobody listens at UDP 198.18.1.1:3478");
    let silent = offload.lab.server.udp_socket(offload.listener()).unwrap();
    fails("no answer from 198.18.1.1:3478 to Allocate");
    drop(silent);
}

#[test]
fn a_peer_that_is_not_reached_is_a_failure() {
    let offload = options().start_without_daemon();
    // What comes from the relay ports is thrown away before the peer has it.
    let client = client_of(&offload);
    client.run("nft", &["add table ip t; add chain ip t c { type filter hook input priority 0; }"]).unwrap();
    client.run("nft", &["add rule ip t c ip saddr 198.18.2.1 drop"]).unwrap();
    let (code, report) = probe_json(client, offload.listener(), &["--count", "20", "--rate", "100"]);
    assert_eq!((code, &report["figures"]["at_peer"]), (Some(1), &0.into()), "{report:#}");
    let message = report["error"]["message"].as_str().unwrap();
    assert!(message.contains("none of 20 packets reached the peer"), "{message}");
}

#[test]
fn the_password_comes_from_a_file_or_is_asked_for() {
    let offload = options().start_without_daemon();
    let folder = ScratchFolder::new("probe").unwrap();
    let file = folder.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = client_of(&offload).command(env!("CARGO_BIN_EXE_turn-bpf"));
        let uri = format!("turn:{}", offload.listener());
        command.args(["doctor", "--count", "5", "--user", USER, "--probe", &uri]).args(arguments);
        command.env_remove("TURN_BPF_PASSWORD").output().unwrap().status.code()
    };
    assert_eq!(command(&["--password-file", file.to_str().unwrap()]), Some(0));
    assert_eq!(command(&[]), Some(2));
    assert_eq!(command(&["--password-file", "/nonexistent"]), Some(2));
    assert_eq!(command(&["--password", PASSWORD]), Some(0));
}
