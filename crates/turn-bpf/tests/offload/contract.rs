//! The JSON documents are a contract: outside scripts read exactly these keys.

use std::time::Duration;

use serde_json::Value;
use turn_testkit::coturn::{REALM, USER};
use turn_testkit::lab::Topology;
use turn_testkit::offload::ARMING;
use turn_testkit::traffic::{Channel, Traffic};

use crate::{CHANNEL, options};

/// The keys of an object, and the kind of each value.
fn shape(value: &Value) -> Vec<(String, &'static str)> {
    let Value::Object(object) = value else { panic!("no object: {value}") };
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_u64() => "count",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut shape: Vec<_> = object.iter().map(|(key, value)| (key.clone(), kind(value))).collect();
    shape.sort();
    shape
}

fn expect(value: &Value, expected: &[(&str, &'static str)]) {
    let mut expected: Vec<_> = expected.iter().map(|(key, kind)| ((*key).to_owned(), *kind)).collect();
    expected.sort();
    assert_eq!(shape(value), expected);
}

#[test]
fn documents_have_exactly_the_documented_keys_and_the_counts_are_right() {
    for (topology, mode, sizes) in
        [(Topology::Two, "native", 32..=1000), (Topology::One, "generic", 500..=500)]
    {
        let mut offload = options().topology(topology).mode(mode).start();
        let (mut client, relayed) = offload.allocated_client();
        let echo = offload.echo();
        let arming = offload.bind_and_arm(&mut client, CHANNEL, &echo);
        let before = offload.session(&client, CHANNEL).unwrap();
        let traffic =
            Traffic { stream: 1, sizes: sizes.clone(), rate: 1000, duration: Duration::from_secs(2) };
        let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
        assert_eq!(report.verify(), Ok(()));

        let interfaces = offload.lab.interfaces();
        let daemon = offload.daemon();
        let sessions: Value = daemon.document("sessions").unwrap();
        expect(&sessions, &[("schema", "count"), ("sessions", "array")]);
        assert_eq!(sessions["schema"], 1);
        let row = &sessions["sessions"][0];
        assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1);
        expect(
            row,
            &[
                ("client", "text"),
                ("server", "text"),
                ("relayed", "text"),
                ("peer", "text"),
                ("channel", "text"),
                ("state", "text"),
                ("reason", "null"),
                ("client_to_peer", "object"),
                ("peer_to_client", "object"),
                ("explanation", "null"),
                ("started", "text"),
                ("age_seconds", "count"),
                ("username", "text"),
                ("realm", "text"),
            ],
        );
        assert_eq!((&row["username"], &row["realm"]), (&USER.into(), &REALM.into()));
        assert_eq!(row["client"], client.address().unwrap().to_string());
        assert_eq!(row["server"], client.server().to_string());
        assert_eq!(row["relayed"], relayed.to_string());
        assert_eq!(row["peer"], echo.address().to_string());
        assert_eq!((&row["channel"], &row["state"]), (&"0x4001".into(), &"kernel".into()));

        let spilled_bytes_at_most = 1000;
        let size = |number: u64| *sizes.start() as u64 + number % (sizes.end() - sizes.start() + 1) as u64;
        let bytes: u64 = (0..report.sent).map(size).sum();
        for (direction, before) in
            [("client_to_peer", before.client_to_peer), ("peer_to_client", before.peer_to_client)]
        {
            let counts = &row[direction];
            expect(
                counts,
                &[
                    ("kernel_packets", "count"),
                    ("kernel_bytes", "count"),
                    ("spilled_packets", "count"),
                    ("spilled_bytes", "count"),
                ],
            );
            let count = |key: &str| counts[key].as_u64().unwrap();
            let (kernel, spilled) = (count("kernel_packets"), count("spilled_packets"));
            assert_eq!(kernel + spilled, arming + report.sent, "{direction}");
            let all_bytes = count("kernel_bytes") + count("spilled_bytes");
            assert_eq!(all_bytes, bytes + arming * ARMING.len() as u64, "{direction}");
            let by_server = (spilled - before.spilled_packets) * spilled_bytes_at_most;
            let kernel_bytes = count("kernel_bytes") - before.kernel_bytes;
            assert!(
                (bytes - by_server..=bytes).contains(&kernel_bytes),
                "{direction}: {kernel_bytes} of {bytes}"
            );
            if sizes.start() == sizes.end() {
                let kernel = kernel - before.kernel_packets;
                assert_eq!(kernel_bytes, kernel * *sizes.start() as u64, "{direction}");
            }
        }

        let status: Value = daemon.document("status").unwrap();
        expect(
            &status,
            &[
                ("schema", "count"),
                ("interfaces", "array"),
                ("allocations", "count"),
                ("bindings", "count"),
                ("flows", "object"),
                ("packets", "object"),
                ("reasons", "object"),
                ("version", "text"),
                ("started", "text"),
                ("bytes", "object"),
                ("sessions", "object"),
                ("paused", "array"),
                ("max_rate", "null"),
                ("control_messages", "object"),
            ],
        );
        expect(&status["bytes"], &[("kernel", "count"), ("spilled", "count")]);
        expect(
            &status["sessions"],
            &[("kernel", "count"), ("mixed", "count"), ("userspace", "count"), ("reasons", "object")],
        );
        assert_eq!(status["sessions"]["kernel"], 1);
        assert_eq!(
            (&status["schema"], &status["allocations"], &status["bindings"]),
            (&1.into(), &1.into(), &1.into())
        );
        let names: Vec<_> = status["interfaces"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                expect(
                    one,
                    &[("name", "text"), ("mode", "text"), ("ifindex", "count"), ("mode_reason", "null")],
                );
                assert_eq!(one["mode"], mode);
                one["name"].as_str().unwrap()
            })
            .collect();
        assert_eq!(names, interfaces);
        expect(&status["flows"], &[("armed", "count"), ("total", "count"), ("max", "count")]);
        assert_eq!((&status["flows"]["armed"], &status["flows"]["total"]), (&2.into(), &2.into()));
        expect(&status["packets"], &[("kernel", "count"), ("spilled", "count"), ("passed", "count")]);
        let directions = ["client_to_peer", "peer_to_client"];
        for (total, part) in [("kernel", "kernel_packets"), ("spilled", "spilled_packets")] {
            let sum: u64 = directions.iter().map(|direction| row[direction][part].as_u64().unwrap()).sum();
            assert_eq!(status["packets"][total], sum, "{total}");
            let part = part.replace("packets", "bytes");
            let sum: u64 = directions.iter().map(|direction| row[direction][&part].as_u64().unwrap()).sum();
            assert_eq!(status["bytes"][total], sum, "{total}");
        }
        assert!(shape(&status["reasons"]).iter().all(|(_, kind)| *kind == "count"));
        for reason in ["relayed", "redirected", "heartbeat", "no_lease", "no_flow", "witness", "too_big"] {
            assert!(status["reasons"][reason].is_u64(), "{reason}");
        }
    }
}
