//! `turn-bpf events`: what happens to a session, in order.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use turn_testkit::daemon::Daemon;
use turn_testkit::offload::{PATIENCE, wait_until};
use turn_testkit::process::Process;

use crate::{CHANNEL, options};

/// A reader of events.
struct Reader {
    _process: Process,
    lines: mpsc::Receiver<String>,
}

impl Reader {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut command = daemon.command("events");
        let mut process = Process::spawn(command.args(arguments).stdout(Stdio::piped())).unwrap();
        let output = BufReader::new(process.child().stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { _process: process, lines }
    }

    fn next(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("another event")
    }

    /// The next event of this kind; those of others in between do not matter.
    fn next_of(&self, kind: &str) -> Value {
        loop {
            let event: Value = serde_json::from_str(&self.next()).unwrap();
            if event["event"] == kind {
                return event;
            }
        }
    }
}

#[test]
fn the_life_of_a_session_is_told() {
    let mut offload = options().start();
    let reader = Reader::start(offload.daemon(), &["--json"]);
    let people = Reader::start(offload.daemon(), &[]);
    // Nothing says that a reader is heard, so somebody is refused until both have told it: loopback addresses are no peers.
    let (mut refused, _) = offload.allocated_client();
    let mut refuse = || {
        let error = refused.channel_bind(CHANNEL, "127.0.0.1:9".parse().unwrap()).unwrap_err();
        assert_eq!(error.code(), Some(403));
    };
    let (mut told, mut seen) = (false, false);
    wait_until("both readers are heard", || {
        refuse();
        told |= reader.lines.try_recv().is_ok_and(|line| line.contains("refused"));
        seen |= people.lines.try_recv().is_ok_and(|line| line.contains(" refused "));
        told && seen
    });

    let (mut client, relayed) = offload.allocated_client();
    let echo = offload.echo();
    client.channel_bind(CHANNEL, echo.address()).unwrap();
    let address = client.address().unwrap().to_string();
    let learned = reader.next_of("learned");
    assert_eq!(
        [&learned["client"], &learned["peer"], &learned["relayed"], &learned["channel"]],
        [&address, &echo.address().to_string(), &relayed.to_string(), "0x4001"]
    );
    offload.arm(&mut client, CHANNEL);
    let mut directions = [reader.next_of("armed"), reader.next_of("armed")]
        .map(|event| event["direction"].as_str().unwrap().to_owned());
    directions.sort();
    assert_eq!(directions, ["client_to_peer", "peer_to_client"]);

    // A server that does not answer lets the leases run out; the next packet finds that.
    offload.coturn().process().signal(Signal::STOP).unwrap();
    wait_until("a lease that ran out", || {
        client.send_channel_data(CHANNEL, b"anybody there?", &[]).unwrap();
        offload.session(&client, CHANNEL).is_some_and(|row| row.reason.as_deref() == Some("lease_over"))
    });
    // It may have run out after the last of these packets.
    client.send_channel_data(CHANNEL, b"anybody there?", &[]).unwrap();
    let lapsed = reader.next_of("lapsed");
    assert_eq!((&lapsed["client"], &lapsed["reason"]), (&address.clone().into(), &"lease_over".into()));
    offload.coturn().process().signal(Signal::CONT).unwrap();

    offload.take_coturn().kill().unwrap();
    let revoked = reader.next_of("revoked");
    assert_eq!((&revoked["client"], &revoked["reason"]), (&address.clone().into(), &"socket_closed".into()));
    let line = loop {
        let line = people.next();
        if line.contains(" revoked ") {
            break line;
        }
    };
    assert!(line.contains(&format!("client {address} ")) && line.ends_with("(socket_closed)"), "{line}");
}

#[test]
fn events_need_a_daemon() {
    let mut offload = options().start();
    let mut command = offload.daemon().command("events");
    let mut reading = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null())).unwrap();
    offload.take_daemon().stop().unwrap();
    let status = reading.wait(PATIENCE).unwrap().expect("it ends with the daemon");
    assert!(!status.success());
    assert_eq!(command.output().unwrap().status.code(), Some(3));
}
