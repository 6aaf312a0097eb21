//! The clients: how each of them is run, and what it says in the end.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use turn_testkit::coturn::{PASSWORD, REALM, USER};
use turn_testkit::lab::{Family, Lab};
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;
use turn_testkit::traffic::Echo;

use super::install::{self, Tool};
use super::server::Server;
use crate::demo::load::Load;
use crate::demo::uclient::Uclient;
use crate::interrupt;

/// Of each sender: a modest load, since losses on a busy machine would say nothing about turn-bpf.
const PACKETS_PER_SECOND: u32 = 100;
const SECONDS: u32 = 4;
/// Longer than any server waits for a silent client.
const LONG_SECONDS: u32 = 70;
/// uclient's messages.
const MESSAGE_SIZE: u32 = 200;
const UCLIENTS: u32 = 4;
/// What a client may take besides its traffic.
const SLACK: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A TURN client that nobody here wrote. A `Pair` is two clients of one server that talk to each other's relayed transport address; the
/// others talk to a peer that echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// coturn's load generator.
    Uclient,
    /// The same, client to client.
    UclientPair,
    /// aioice, which aiortc uses.
    Aioice,
    /// Two of them.
    AioicePair,
    /// webrtc-rs.
    WebrtcRs,
    /// Two of them.
    WebrtcRsPair,
    /// turn-client-proto, which librice uses.
    TurnClientProto,
    /// Two of them.
    TurnClientProtoPair,
    /// Two tabs of a browser in a call.
    ChromiumPair,
    /// A pair that talks for more than a minute, for servers that drop a client they do not hear.
    TurnClientProtoPairMinute,
}

/// What a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Packets that are to arrive.
    pub sent: u64,
    /// Of these, as many have.
    pub received: u64,
    pub duplicated: u64,
    pub altered: u64,
    /// How many packets that made for the server to relay, with those that do not count.
    pub relays: u64,
}

impl Client {
    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Uclient => "turnutils_uclient",
            Self::UclientPair => "turnutils_uclient, client to client",
            Self::Aioice => "aioice 0.13.0",
            Self::AioicePair => "aioice 0.13.0, client to client",
            Self::WebrtcRs => "webrtc-rs 0.17.2",
            Self::WebrtcRsPair => "webrtc-rs 0.17.2, client to client",
            Self::TurnClientProto => "turn-client-proto 0.7.3",
            Self::TurnClientProtoPair => "turn-client-proto 0.7.3, client to client",
            Self::ChromiumPair => "Chromium, tab to tab, audio and video",
            Self::TurnClientProtoPairMinute => "turn-client-proto 0.7.3, client to client, 70 s",
        }
    }

    pub fn tools(self) -> &'static [Tool] {
        match self {
            Self::Uclient | Self::UclientPair => &[],
            Self::Aioice | Self::AioicePair => &[Tool::Aioice],
            Self::WebrtcRs
            | Self::WebrtcRsPair
            | Self::TurnClientProto
            | Self::TurnClientProtoPair
            | Self::TurnClientProtoPairMinute => &[Tool::Drivers],
            Self::ChromiumPair => &[Tool::Chromium],
        }
    }

    /// Whether a server is of interest: a minute is long only for one that drops silent clients.
    pub fn is_for(self, server: Server) -> bool {
        self != Self::TurnClientProtoPairMinute || server == Server::TurnRs
    }

    fn is_pair(self) -> bool {
        matches!(
            self,
            Self::UclientPair
                | Self::AioicePair
                | Self::WebrtcRsPair
                | Self::TurnClientProtoPair
                | Self::ChromiumPair
                | Self::TurnClientProtoPairMinute
        )
    }

    /// Its traffic through the lab's server at this port, from beginning to end.
    pub fn run(self, lab: &Lab, port: u16) -> Result<Observed> {
        let addresses = lab.addresses(Family::V4);
        let echo = Echo::start(lab.peer.udp_socket((addresses.peer, 0).into())?);
        let peer = (!self.is_pair()).then(|| echo.address());
        match self {
            Self::Uclient | Self::UclientPair => run_uclient(lab, port, peer),
            Self::ChromiumPair => {
                let profile = ScratchFolder::new("chromium")?;
                let mut command = lab.client.command("node");
                command.arg(install::script("chromium.mjs")).arg(install::node_modules());
                command.arg(format!("{}:{port}", addresses.listen)).args([USER, PASSWORD]);
                command.arg(SECONDS.to_string()).arg(profile.path()).env("HOME", profile.path());
                run_driver(command, SECONDS)
            }
            _ => {
                let (program, script) = match self {
                    Self::Aioice | Self::AioicePair => {
                        (install::python(), Some(install::script("aioice_driver.py")))
                    }
                    Self::WebrtcRs | Self::WebrtcRsPair => (install::driver("webrtc_rs"), None),
                    _ => (install::driver("turn_client_proto"), None),
                };
                let seconds = if self == Self::TurnClientProtoPairMinute { LONG_SECONDS } else { SECONDS };
                let mut command = lab.client.command(program);
                command.args(script).args(["--user", USER, "--password", PASSWORD, "--realm", REALM]);
                command.args(["--server", &SocketAddr::new(addresses.listen, port).to_string()]);
                command.args(["--local", &addresses.client.to_string()]);
                command.args(["--rate", &PACKETS_PER_SECOND.to_string(), "--seconds", &seconds.to_string()]);
                if let Some(peer) = peer {
                    command.args(["--peer", &peer.to_string()]);
                }
                run_driver(command, seconds)
            }
        }
    }
}

/// uclient says only how much came back; it looks at no byte.
fn run_uclient(lab: &Lab, port: u16, peer: Option<SocketAddr>) -> Result<Observed> {
    let load = Load {
        clients: UCLIENTS,
        messages_per_client: PACKETS_PER_SECOND * SECONDS / UCLIENTS,
        message_size: MESSAGE_SIZE,
        interval_ms: 1000 * UCLIENTS / PACKETS_PER_SECOND,
    };
    let server = (lab.addresses(Family::V4).listen, port).into();
    let mut uclient = Uclient::start(&lab.client, &load, server, peer.map(|peer| (peer.ip(), peer.port())))?;
    wait(&mut uclient.process, SECONDS).with_context(|| format!("{:?}", uclient.tally()))?;
    let tally = uclient.finish()?;
    let echoed = if peer.is_some() { tally.received } else { 0 };
    Ok(Observed {
        sent: tally.sent,
        received: tally.received,
        duplicated: 0,
        altered: 0,
        relays: tally.sent + echoed,
    })
}

/// The others say it in one line of JSON.
fn run_driver(mut command: Command, seconds: u32) -> Result<Observed> {
    let folder = ScratchFolder::new("client")?;
    let errors = folder.path().join("errors");
    // The last line of what they write is to be the error.
    command.env("RUST_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&errors)?);
    let mut process = Process::spawn(&mut command).context("cannot run the client")?;
    let said = || {
        let text = fs::read(&errors).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
    };
    wait(&mut process, seconds).with_context(|| format!("the client said: {}", said()))?;
    let mut text = String::new();
    if let Some(stdout) = &mut process.child().stdout {
        stdout.read_to_string(&mut text)?;
    }
    match serde_json::from_str(text.trim()) {
        Ok(observed) => Ok(observed),
        Err(_) => bail!("{}", said()),
    }
}

fn wait(process: &mut Process, seconds: u32) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(seconds.into()) + SLACK;
    while process.ended()?.is_none() {
        interrupt::check()?;
        if Instant::now() > deadline {
            process.kill()?;
            bail!("the client did not come to an end");
        }
        thread::sleep(POLL);
    }
    Ok(())
}
