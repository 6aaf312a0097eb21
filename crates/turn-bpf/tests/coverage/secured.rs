//! Clients whose way to the server is encrypted: nobody but the server sees what they say.

use std::process::{Command, Stdio};

use turn_testkit::coturn::{CoturnOptions, PASSWORD, SECURED_PORT, USER};
use turn_testkit::lab::Family;
use turn_testkit::offload::Offload;
use turn_testkit::scratch::ScratchFolder;

use crate::calls::{load, talk_in_kernel};
use crate::{CHANNEL, options};

const MESSAGES: u64 = 60;

/// coturn's own client, which has channels for what it sends; returns what it says in the end.
fn uclient(offload: &Offload, arguments: &[&str], peer: std::net::SocketAddr) -> String {
    let listen = offload.lab.addresses(Family::V4).listen.to_string();
    let mut command = offload.lab.client.command("timeout");
    command.args(["30", "turnutils_uclient", "-c", "-u", USER, "-w", PASSWORD]).args(arguments);
    command.args(["-e", &peer.ip().to_string(), "-r", &peer.port().to_string()]);
    command.args(["-n", &MESSAGES.to_string(), "-m", "1", "-l", "200", "-z", "5"]);
    command.args(["-p", &SECURED_PORT.to_string(), &listen]).stdin(Stdio::null());
    let output = command.output().expect("turnutils_uclient");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[test]
fn clients_over_tls_and_dtls_are_left_to_the_server() {
    let folder = ScratchFolder::new("certificate").unwrap();
    let [key, certificate] = ["key.pem", "certificate.pem"].map(|name| folder.path().join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=lab", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut offload = options().without_coturn().start();
    offload.serve(CoturnOptions::of(&offload.lab).secured(&certificate, &key));
    let echo = offload.echo();
    // The client's way in, and its peer's.
    for (arguments, reason) in [(&["-t", "-S"][..], "not_udp"), (&["-S"], "no_flow")] {
        let before = ["no_flow", reason].map(|reason| offload.count(reason));
        let echoed = echo.echoed();
        let said = uclient(&offload, arguments, echo.address());
        assert!(said.contains("Total lost packets 0 "), "{arguments:?}: {said}");
        assert!(echo.echoed() - echoed >= MESSAGES, "{arguments:?}");
        assert_eq!((offload.sessions(), offload.kernel_packets()), (Vec::new(), 0), "{arguments:?}");
        let after = ["no_flow", reason].map(|reason| offload.count(reason));
        assert!(after[0] - before[0] >= MESSAGES && after[1] - before[1] >= MESSAGES, "{before:?} {after:?}");
    }
    // A client of the same server over UDP is none the worse.
    let (mut client, _) = offload.allocated_client();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    talk_in_kernel(&offload, &mut client, CHANNEL, &load(1));
}
