//! Servers of different makes on one host at the same time, with one turn-bpf, each with a client of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use turn_testkit::coturn::PORT;
use turn_testkit::daemon::{Daemon, Session};
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::scratch::ScratchFolder;

use super::client::{Client, Observed};
use super::install;
use super::server::Server;
use crate::interrupt;

/// Those that install quickly.
pub const SERVERS: [Server; 2] = [Server::Coturn, Server::Ejabberd];
/// It looks at every byte.
pub const CLIENT: Client = Client::AioicePair;

/// coturn also listens on the port behind its own.
const APART: u16 = 10;
const POLL: Duration = Duration::from_millis(100);
/// Of all packets, from which on they count as relayed in the kernel.
const RELAYED: f64 = 0.9;

/// What came of them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Together {
    parts: Vec<Part>,
}

/// One of the servers.
#[derive(Debug, Serialize, Deserialize)]
struct Part {
    server: Server,
    observed: Observed,
    /// Packets relayed in the kernel in this server's sessions.
    kernel: u64,
}

impl Part {
    fn share(&self) -> f64 {
        self.kernel as f64 / self.observed.relays as f64
    }

    fn is_faulty(&self) -> bool {
        let Observed { sent, received, duplicated, altered, .. } = self.observed;
        received < sent || duplicated + altered > 0 || self.share() < RELAYED
    }
}

impl Together {
    /// Starts them all, has their clients talk at the same time, and asks turn-bpf whose packets it relays.
    pub fn run(binary: &Path) -> Result<Self> {
        let mut lab = Lab::new(Topology::One)?;
        lab.attach_pass()?;
        let servers: Vec<_> = SERVERS.into_iter().zip((PORT..).step_by(APART.into())).collect();
        let running: Vec<_> =
            servers.iter().map(|(server, port)| server.start_on(&lab, *port)).collect::<Result<_>>()?;
        let folder = ScratchFolder::new("together")?;
        let daemon =
            Daemon::start(&lab.server, binary, &folder.path().join("control.sock"), lab.interfaces())?;
        let mut kernel = BTreeMap::new();
        let observed = thread::scope(|scope| -> Result<Vec<Observed>> {
            let runs: Vec<_> = servers
                .iter()
                .map(|(server, port)| {
                    let lab = &lab;
                    (server, scope.spawn(move || CLIENT.run(lab, *port)))
                })
                .collect();
            // Sessions are gone when the client is, so they are looked at while it runs.
            while !runs.iter().all(|(_, run)| run.is_finished()) {
                interrupt::check()?;
                for session in daemon.sessions()? {
                    kernel.insert(
                        (session.server.port(), session.client, session.channel.clone()),
                        of(&session),
                    );
                }
                thread::sleep(POLL);
            }
            let outcome = |(server, run): (&Server, thread::ScopedJoinHandle<'_, Result<Observed>>)| {
                let outcome = run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                outcome.with_context(|| server.title())
            };
            runs.into_iter().map(outcome).collect()
        })?;
        daemon.stop()?;
        running.into_iter().try_for_each(|running| running.stop())?;
        let part = |((server, port), observed): ((Server, u16), Observed)| {
            let of_it = kernel.iter().filter(|((of, ..), _)| *of == port).map(|(_, packets)| packets);
            Part { server, observed, kernel: of_it.sum() }
        };
        Ok(Self { parts: servers.into_iter().zip(observed).map(part).collect() })
    }

    pub fn has_faults(&self) -> bool {
        self.parts.iter().any(Part::is_faulty)
    }

    /// The latest result, if there is one.
    pub fn load() -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path()).ok()?).ok()
    }

    /// Keeps the result for the document.
    pub fn store(&self) -> Result<()> {
        let path = path();
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        Ok(fs::write(&path, serde_json::to_string_pretty(self)?)?)
    }

    /// For the document.
    pub fn section(&self) -> String {
        format!(
            "\n## Servers of different makes on one host\n\nAt the same time, with one turn-bpf, at one address and ports of their own. \
             Each has its own clients ({}), which check every byte.\n\n{self}",
            CLIENT.title()
        )
    }
}

/// What the client sent, and what it was sent: from client to client the same packets are the other one's, too.
fn of(session: &Session) -> u64 {
    session.client_to_peer.kernel_packets
}

fn path() -> PathBuf {
    install::folder().join("results").join("together.json")
}

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| server | arrived | in the kernel |\n|---|---:|---:|")?;
        for part in &self.parts {
            let Observed { sent, received, .. } = part.observed;
            let share = part.share() * 100.0;
            writeln!(f, "| {} | {received} of {sent} | {share:.1} % |", part.server.title())?;
        }
        Ok(())
    }
}
