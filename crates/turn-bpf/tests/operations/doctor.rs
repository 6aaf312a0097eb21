//! `turn-bpf doctor --coturn-config`.

use std::fs;
use std::process::Command;

use serde_json::Value;
use turn_testkit::scratch::ScratchFolder;

#[test]
fn the_doctor_reads_a_configuration_of_coturn() {
    let folder = ScratchFolder::new("doctor").unwrap();
    let path = folder.path().join("turnserver.conf");
    fs::write(&path, "listening-port=3478\nmax-bps=650000\nmobility\n").unwrap();
    let doctor = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_turn-bpf"));
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
    ];
    assert_eq!(results, expected);
    let text = String::from_utf8_lossy(&doctor(&["lo"]).stdout).into_owned();
    assert!(text.contains("--max-rate 650000") && text.contains("lo "), "{text}");

    fs::remove_file(&path).unwrap();
    assert_eq!(doctor(&[]).status.code(), Some(1));
}
