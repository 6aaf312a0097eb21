//! `turn-bpf sessions`: which ones, in which form, and in which words; and `turn-bpf status`.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;
use turn_testkit::coturn::{REALM, USER};
use turn_testkit::process::Process;
use turn_testkit::terminal::Terminal;

use crate::{CHANNEL, busy_and_idle, options};

#[test]
fn sessions_are_found_by_address_and_told_in_every_form() {
    let mut offload = options().start();
    let (mut client, relayed) = offload.allocated_client();
    let (mut other, _) = offload.allocated_client();
    let [echo, other_echo] = [offload.echo(), offload.echo()];
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    other.channel_bind(0x4002, other_echo.address()).unwrap();
    offload.wait_for_session(&other, 0x4002, |_| true);
    let [one, two] = [&client, &other].map(|client| client.address().unwrap().to_string());
    let daemon = offload.daemon();

    let (one_peer, both_clients) =
        (echo.address().to_string(), format!("{}/32", client.address().unwrap().ip()));
    let relayed = relayed.to_string();
    let rows: [(&[&str], &[&String]); 10] = [
        (&[], &[&one, &two]),
        (&["--client", &one], &[&one]),
        (&["--client", &both_clients], &[&one, &two]),
        (&["--peer", &one_peer], &[&one]),
        (&["--relayed", &relayed], &[&one]),
        (&[&one_peer], &[&one]),
        (&["--channel", "0x4002"], &[&two]),
        (&["--client", &two, "--channel", "0x4001"], &[]),
        (&["2001:db8::/32"], &[]),
        (&["198.18.0.0/15"], &[&one, &two]),
    ];
    for (arguments, expected) in rows {
        let text = daemon.output("sessions", &[arguments, &["-o", "tsv"]].concat()).unwrap();
        let mut clients: Vec<_> = text.lines().map(|line| line.split('\t').next().unwrap()).collect();
        clients.sort_unstable();
        let mut expected: Vec<_> = expected.iter().map(|client| client.as_str()).collect();
        expected.sort_unstable();
        assert_eq!(clients, expected, "{arguments:?}");
    }

    let lines = daemon.output("sessions", &["--output", "jsonl"]).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let document: Value = serde_json::from_str(&daemon.output("sessions", &["-o", "json"]).unwrap()).unwrap();
    assert_eq!(document["sessions"].as_array().unwrap().len(), lines.len());
    let idle = lines.iter().find(|row| row["client"] == two).unwrap();
    assert_eq!((&idle["state"], &idle["reason"]), (&"userspace".into(), &"no_traffic".into()));
    assert_eq!(idle["explanation"], "It has had no traffic yet.");
    assert_eq!((&idle["username"], &idle["realm"]), (&USER.into(), &REALM.into()));
    let table = daemon.output("sessions", &[]).unwrap();
    assert!(table.contains("\nno_traffic: It has had no traffic yet.\n"), "{table}");

    // Every row of `--watch` comes again, until the reader has enough.
    let mut command = daemon.command("sessions");
    command.args(["--watch=100ms", "-o", "tsv", "--client", &one]).stdout(Stdio::piped());
    let mut watching = Process::spawn(&mut command).unwrap();
    let output = BufReader::new(watching.child().stdout.take().unwrap());
    let seen: Vec<_> = output.lines().take(3).map(Result::unwrap).collect();
    assert!(seen.iter().all(|line| line.starts_with(&one)) && seen.len() == 3, "{seen:?}");
    let status = watching.wait(turn_testkit::offload::PATIENCE).unwrap().expect("it ends");
    assert!(status.success(), "{status}");

    for wrong in [&["--client", "nobody"][..], &["-o", "xml"], &["--json", "-o", "tsv"]] {
        let status = daemon.command("sessions").args(wrong).output().unwrap().status;
        assert_eq!(status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn status_says_how_much_and_why_not_the_rest() {
    let mut offload = options().start();
    let _sessions = busy_and_idle(&offload);
    let text = offload.daemon().output("status", &[]).unwrap();
    let mut lines = text.lines();
    let first = lines.next().unwrap();
    assert!(first.starts_with("relayed in the kernel   ") && first.contains("% of packets, "), "{text}");
    assert!(lines.next().unwrap().contains("no_lease"), "{text}");
    assert!(text.contains("sessions in the kernel  1 of 2, 1 with the server\n"), "{text}");
    assert!(text.contains(" 1  no_traffic  It has had no traffic yet.\n"), "{text}");

    // On a terminal in colours, unless the user objects.
    for (no_colour, expected) in [("", true), ("1", false)] {
        let mut command = offload.daemon().command("status");
        let mut terminal = Terminal::with_lines(command.env("NO_COLOR", no_colour), 60).unwrap();
        assert!(terminal.wait().unwrap().expect("it ends").success());
        terminal.wait_for("the whole of it", |text| text.contains("MEANING"));
        assert_eq!(terminal.has_colours(), expected, "NO_COLOR={no_colour:?}\n{}", terminal.text());
    }
}
