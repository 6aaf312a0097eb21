//! One line for each session that ends, for those who bill.

use std::time::Duration;

use serde_json::Value;
use turn_testkit::coturn::{REALM, USER};
use turn_testkit::offload::{Offload, wait_until};
use turn_testkit::traffic::{Channel, Traffic};

use crate::{CHANNEL, options};

/// The lines about sessions that have ended, in the order of the log.
fn ended(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["fields"]["message"] == "session ended")
        .map(|line| line["fields"].clone())
        .collect()
}

fn call(offload: &mut Offload) -> (String, [u64; 2]) {
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let traffic = Traffic { stream: 1, sizes: 200..=200, rate: 500, duration: Duration::from_secs(1) };
    let report = traffic.round_trips(&mut Channel { client: &mut client, number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    let session = offload.session(&client, CHANNEL).unwrap();
    let totals = [session.client_to_peer, session.peer_to_client];
    client.refresh(0).unwrap();
    offload.wait_until_unbound(&client, CHANNEL);
    (client.address().unwrap().to_string(), totals.map(|counts| counts.kernel_bytes + counts.spilled_bytes))
}

#[test]
fn an_ended_session_is_logged_with_its_totals() {
    let mut offload = options().daemon(&["--log-format", "json"]).start();
    let (client, bytes) = call(&mut offload);
    wait_until("the line", || ended(&offload.log()).len() == 1);
    let line = &ended(&offload.log())[0];
    assert_eq!(
        [&line["client"], &line["channel"], &line["reason"], &line["username"], &line["realm"]],
        [&client, "0x4001", "refreshed_to_zero", USER, REALM]
    );
    for (direction, bytes) in ["client_to_peer", "peer_to_client"].into_iter().zip(bytes) {
        let part = |part: &str| line[format!("{direction}_{part}_bytes")].as_u64().unwrap();
        assert_eq!(part("kernel") + part("spilled"), bytes, "{direction}");
        assert!(part("kernel") > part("spilled"), "{direction}");
    }
    assert!(
        line["duration_seconds"].as_f64().unwrap() > 1.0 && line["started"].as_str().unwrap().ends_with('Z')
    );

    // What is not over when turn-bpf ends is logged as well.
    let (mut other, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut other, CHANNEL, &echo);
    let log = {
        let mut daemon = offload.take_daemon();
        daemon.process().stop(rustix::process::Signal::TERM, turn_testkit::offload::PATIENCE).unwrap();
        daemon.log()
    };
    let lines = ended(&log);
    assert_eq!((lines.len(), &lines[1]["reason"]), (2, &"stopped".into()));
    assert_eq!(lines[1]["client"], other.address().unwrap().to_string());
}

#[test]
fn who_wants_no_lines_or_no_names_gets_none() {
    let mut offload = options().daemon(&["--log-format", "json", "--no-usernames"]).start();
    call(&mut offload);
    wait_until("the line", || ended(&offload.log()).len() == 1);
    let line = &ended(&offload.log())[0];
    assert_eq!((line.get("username"), line.get("realm")), (None, None));

    let mut offload = options().daemon(&["--log-format", "json", "--no-session-log"]).start();
    call(&mut offload);
    wait_until("the end of it", || offload.log().contains("refreshed_to_zero"));
    assert_eq!(ended(&offload.log()), Vec::<Value>::new());
}
