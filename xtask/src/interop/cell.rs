//! One server with one client, without and with turn-bpf.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use turn_testkit::coturn::PORT;
use turn_testkit::daemon::Daemon;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::scratch::ScratchFolder;

use super::client::{Client, Observed};
use super::install;
use super::server::Server;
use super::verdict::Verdict;
use crate::demo::progress::Progress;
use crate::interrupt;

/// A busy machine may lose something; turn-bpf loses it every time.
const ATTEMPTS: u32 = 3;

/// What came of a server with a client.
#[derive(Debug, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Cell {
    pub server: Server,
    pub client: Client,
    pub without: Half,
    pub with: Half,
    pub verdict: Verdict,
}

/// A cell as it is read: what was observed, of which the verdict follows.
#[derive(Deserialize)]
struct Stored {
    server: Server,
    client: Client,
    without: Half,
    with: Half,
}

impl From<Stored> for Cell {
    fn from(stored: Stored) -> Self {
        let Stored { server, client, without, with } = stored;
        let verdict = Verdict::of(server, client, &without, &with);
        Self { server, client, without, with, verdict }
    }
}

/// One way to run it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Half {
    pub observed: Option<Observed>,
    /// Why there is nothing that was observed.
    pub failure: Option<String>,
    pub kernel: Option<Kernel>,
    /// Datagrams that found no room in the receive buffers of the server's sockets.
    pub server_overflows: u64,
}

/// What turn-bpf said afterwards.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kernel {
    pub packets: u64,
    pub bindings_seen: u64,
    /// Why bindings are not in the kernel, and how many.
    pub session_reasons: BTreeMap<String, u64>,
    /// Packets by reason.
    pub reasons: BTreeMap<String, u64>,
}

impl Half {
    /// Whether enough arrived to call it a call. What arrives altered, with padding say, does so in the same way without turn-bpf.
    pub fn works(&self) -> bool {
        self.observed
            .is_some_and(|seen| seen.sent > 0 && (seen.received + seen.altered) * 10 >= seen.sent * 9)
    }

    /// Packets that are missing.
    pub fn lost(&self) -> u64 {
        self.observed.map_or(0, |seen| seen.sent.saturating_sub(seen.received + seen.altered))
    }

    /// Packets that came twice or were changed.
    pub fn damaged(&self) -> u64 {
        self.observed.map_or(0, |seen| seen.duplicated + seen.altered)
    }

    /// Which part of all that was to be relayed the kernel has relayed, 0 to 1.
    pub fn share(&self) -> Option<f64> {
        let (seen, kernel) = (self.observed?, self.kernel.as_ref()?);
        (seen.relays > 0).then(|| kernel.packets as f64 / seen.relays as f64)
    }

    fn is_clean(&self) -> bool {
        self.works() && self.lost() <= self.server_overflows && self.damaged() == 0
    }
}

impl Cell {
    /// Runs both halves; the second one again if it is worse than the first.
    pub fn run(server: Server, client: Client, binary: &Path, progress: &Progress) -> Result<Self> {
        if !client.is_for(server) {
            return Ok(Stored { server, client, without: Half::default(), with: Half::default() }.into());
        }
        let name = format!("interop: {} with {}", server.title(), client.title());
        progress.line(&format!("{name}: without turn-bpf"));
        let mut without = half(server, client, None)?;
        if !without.works() {
            without = half(server, client, None)?;
        }
        let mut with = Half::default();
        if without.works() {
            for _ in 0..ATTEMPTS {
                progress.line(&format!("{name}: with turn-bpf"));
                with = half(server, client, Some(binary))?;
                if with.is_clean() || !without.is_clean() && with.works() {
                    break;
                }
            }
        }
        Ok(Stored { server, client, without, with }.into())
    }

    /// The latest result of a server with a client, if there is one.
    pub fn load(server: Server, client: Client) -> Option<Self> {
        let text = fs::read_to_string(path(server, client)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Keeps the result for the document.
    pub fn store(&self) -> Result<()> {
        let path = path(self.server, self.client);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        Ok(fs::write(&path, serde_json::to_string_pretty(self)?)?)
    }

    /// For the progress.
    pub fn sentence(&self) -> String {
        let observed = match (self.with.observed, self.with.share()) {
            (Some(_), Some(share)) => {
                format!(", {:.1} % in the kernel, {} lost", share * 100.0, self.with.lost())
            }
            _ => String::new(),
        };
        format!("{}{observed}", self.verdict)
    }
}

fn path(server: Server, client: Client) -> PathBuf {
    install::folder().join("results").join(format!("{server:?} with {client:?}.json"))
}

fn half(server: Server, client: Client, offload: Option<&Path>) -> Result<Half> {
    let half = try_half(server, client, offload);
    interrupt::check()?;
    Ok(half.unwrap_or_else(|error| Half { failure: Some(format!("{error:#}")), ..Half::default() }))
}

/// A lab and a server of its own, and turn-bpf if asked for.
fn try_half(server: Server, client: Client, offload: Option<&Path>) -> Result<Half> {
    let mut lab = Lab::new(Topology::One)?;
    lab.attach_pass()?;
    let running = server.start(&lab)?;
    let folder = ScratchFolder::new("interop")?;
    let control = folder.path().join("control.sock");
    let daemon =
        offload.map(|binary| Daemon::start(&lab.server, binary, &control, lab.interfaces())).transpose()?;
    // Sessions are gone when the client is, so they are looked at while it runs.
    let mut session_reasons = BTreeMap::new();
    let mut bindings_seen = 0;
    let outcome = std::thread::scope(|scope| -> Result<Result<Observed>> {
        let run = scope.spawn(|| client.run(&lab, PORT));
        while !run.is_finished() {
            if let Some(daemon) = &daemon {
                let sessions = daemon.sessions()?;
                if sessions.len() as u64 >= bindings_seen && !sessions.is_empty() {
                    bindings_seen = sessions.len() as u64;
                    session_reasons = BTreeMap::new();
                    for reason in sessions.into_iter().filter_map(|session| session.reason) {
                        *session_reasons.entry(reason).or_default() += 1;
                    }
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        match run.join() {
            Ok(outcome) => Ok(outcome),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    let server_overflows = lab.server.udp_overflows()?;
    let kernel = daemon
        .map(|daemon| -> Result<Kernel> {
            let status = daemon.status()?;
            let mut reasons = status.reasons;
            reasons.retain(|_, count| *count > 0);
            daemon.stop()?;
            Ok(Kernel { packets: status.packets.kernel, bindings_seen, session_reasons, reasons })
        })
        .transpose()?;
    let log = running.log();
    running.stop()?;
    let (observed, failure) = match outcome {
        Ok(observed) => (Some(observed), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    };
    if let Some(failure) = &failure {
        eprintln!("interop: the client said: {failure}\ninterop: the server's last words: {log}");
    }
    Ok(Half { observed, failure, kernel, server_overflows })
}
