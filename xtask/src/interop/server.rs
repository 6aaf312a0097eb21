//! The servers: how each of them is started.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use turn_testkit::coturn::{PASSWORD, PORT, REALM, USER, answers};
use turn_testkit::lab::{Family, Lab};
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;

use super::install::{self, Tool};
use crate::interrupt;

/// ejabberd has taken more than a minute on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(180);

/// A TURN server that nobody here wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Server {
    /// Debian stable's.
    Coturn,
    /// Debian sid's.
    CoturnNew,
    /// Debian sid's, with segmentation offload, one relay port for all, and reception in batches.
    CoturnNewOptions,
    /// ejabberd's, which is also eturnal's: p1_stun.
    Ejabberd,
    /// turn-rs: no relay sockets, only clients with each other.
    TurnRs,
    /// The example server of webrtc-rs.
    WebrtcRs,
    /// node-turn.
    NodeTurn,
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    process: Process,
    folder: ScratchFolder,
}

impl Server {
    /// For people. Versions are those that [`install`] asks for, or of a Debian release.
    pub fn title(self) -> &'static str {
        match self {
            Self::Coturn => "coturn 4.6.1",
            Self::CoturnNew => "coturn of sid",
            Self::CoturnNewOptions => "coturn of sid, --udp-gso --multiplex-peer --udp-recvmmsg",
            Self::Ejabberd => "ejabberd 23.01 (p1_stun)",
            Self::TurnRs => "turn-rs 4.1.5",
            Self::WebrtcRs => "webrtc-rs turn 0.17.2",
            Self::NodeTurn => "node-turn 0.0.6",
        }
    }

    pub fn tools(self) -> &'static [Tool] {
        match self {
            // Installed by the set-up.
            Self::Coturn => &[],
            Self::CoturnNew | Self::CoturnNewOptions => &[Tool::CoturnOfSid],
            Self::Ejabberd => &[Tool::Ejabberd],
            Self::TurnRs => &[Tool::TurnRs],
            Self::WebrtcRs => &[Tool::WebrtcRs],
            Self::NodeTurn => &[Tool::NodeTurn],
        }
    }

    /// Starts it in the lab on the usual port, and waits until it answers a STUN binding request.
    pub fn start(self, lab: &Lab) -> Result<Running> {
        self.start_on(lab, PORT)
    }

    /// The same on another port. Some listen on the port behind it, too.
    pub fn start_on(self, lab: &Lab, port: u16) -> Result<Running> {
        let folder = ScratchFolder::new("server")?;
        let address = lab.addresses(Family::V4).listen.to_string();
        let mut command = self.command(lab, folder.path(), &address, port)?;
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command).with_context(|| format!("cannot run {}", self.title()))?;
        let mut running = Running { process, folder };
        running.wait_for_answer(lab, SocketAddr::new(address.parse()?, port))?;
        Ok(running)
    }

    fn command(self, lab: &Lab, folder: &Path, address: &str, port: u16) -> Result<Command> {
        let port = port.to_string();
        let mut command = match self {
            Self::Coturn => lab.server.command("turnserver"),
            Self::CoturnNew | Self::CoturnNewOptions => {
                // With the libraries that it was built for, and their loader.
                let root = install::sid();
                let libraries = root.join("usr/lib/x86_64-linux-gnu");
                let mut command = lab.server.command(libraries.join("ld-linux-x86-64.so.2"));
                let systemd = libraries.join("systemd");
                let search = std::env::join_paths([&libraries, &systemd])?;
                command.arg("--library-path").arg(search).arg(root.join("usr/bin/turnserver"));
                command
            }
            Self::Ejabberd => lab.server.command("erl"),
            Self::TurnRs => lab.server.command(install::rust_program("turn-server")),
            Self::WebrtcRs => lab.server.command(install::rust_program("turn_server_udp")),
            Self::NodeTurn => lab.server.command("node"),
        };
        match self {
            Self::Coturn | Self::CoturnNew | Self::CoturnNewOptions => {
                let user = format!("{USER}:{PASSWORD}");
                command.args(["-n", "-a", "-f", "--no-tls", "--log-file", "stdout"]);
                command.args(["-L", address, "-E", address, "-p", &port, "-u", &user, "-r", REALM]);
                command.arg("--pidfile").arg(folder.join("pid")).arg("--userdb").arg(folder.join("db"));
                // The newer one has neither by itself.
                if self == Self::Coturn {
                    command.args(["--no-dtls", "--no-cli"]);
                }
                if self == Self::CoturnNewOptions {
                    // One relay thread, and so one relayed transport address for all clients: with two it would be a matter of luck.
                    command.args(["--udp-gso", "--multiplex-peer", "--udp-recvmmsg", "-m", "1"]);
                }
            }
            Self::Ejabberd => {
                let config = folder.join("ejabberd.yml");
                fs::write(&config, ejabberd_config(address, &port))?;
                // Not a distributed node, which would leave a port mapper behind; and the user is there as soon as ejabberd is.
                command.env("ERL_LIBS", erlang_libraries()?).env("HOME", folder).current_dir(folder);
                let quoted = |path: &Path| format!("\"{}\"", path.display());
                command.args(["-noinput", "-start_epmd", "false", "-mnesia", "dir"]);
                command.arg(quoted(&folder.join("spool"))).args(["-ejabberd", "config"]).arg(quoted(&config));
                command.arg("log_path").arg(quoted(&folder.join("ejabberd.log"))).args(["-s", "ejabberd"]);
                command.arg("-eval").arg(format!(
                    "ejabberd_auth:try_register(<<\"{USER}\">>, <<\"{REALM}\">>, <<\"{PASSWORD}\">>), \
                     file:write_file(\"registered\", <<>>)."
                ));
            }
            Self::TurnRs => {
                let config = folder.join("turn-rs.toml");
                fs::write(&config, turn_rs_config(address, &port))?;
                command.arg("--config").arg(config);
            }
            Self::WebrtcRs => {
                command.args(["--public-ip", address, "--port", &port, "--realm", REALM]);
                command.args(["--users", &format!("{USER}={PASSWORD}")]);
            }
            Self::NodeTurn => {
                command.arg(install::script("node_turn.cjs")).arg(install::node_modules());
                command.args([address, &port, USER, PASSWORD, REALM]);
            }
        }
        Ok(command)
    }
}

fn ejabberd_config(address: &str, port: &str) -> String {
    format!(
        "hosts: [{REALM}]\n\
         loglevel: warning\n\
         auth_method: internal\n\
         listen:\n\
         \x20 - ip: \"{address}\"\n\
         \x20   port: {port}\n\
         \x20   transport: udp\n\
         \x20   module: ejabberd_stun\n\
         \x20   use_turn: true\n\
         \x20   turn_ipv4_address: {address}\n\
         \x20   turn_min_port: 50000\n\
         \x20   turn_max_port: 60000\n\
         \x20   auth_realm: {REALM}\n\
         \x20   auth_type: user\n"
    )
}

/// Debian keeps the modules of ejabberd in a folder by architecture.
fn erlang_libraries() -> Result<PathBuf> {
    let ejabberd = |folder: &PathBuf| {
        let found = fs::read_dir(folder).into_iter().flatten().flatten();
        found.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("ejabberd-"))
    };
    let folders = fs::read_dir("/usr/lib")?.flatten().map(|entry| entry.path());
    folders.into_iter().find(ejabberd).context("there are no Erlang modules of ejabberd below /usr/lib")
}

fn turn_rs_config(address: &str, port: &str) -> String {
    format!(
        "[server]\n\
         realm = \"{REALM}\"\n\
         port-range = \"49152..65535\"\n\
         [[server.interfaces]]\n\
         transport = \"udp\"\n\
         listen = \"{address}:{port}\"\n\
         external = \"{address}:{port}\"\n\
         [auth.static-credentials]\n\
         {USER} = \"{PASSWORD}\"\n"
    )
}

impl Running {
    /// What it has written.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop(Signal::TERM, Duration::from_secs(3))?;
        Ok(())
    }

    fn wait_for_answer(&mut self, lab: &Lab, listener: SocketAddr) -> Result<()> {
        let socket = lab.server.udp_socket((listener.ip(), 0).into())?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let deadline = Instant::now() + START_LIMIT;
        while !answers(&socket, listener) || !self.is_set_up() {
            interrupt::check()?;
            if let Some(status) = self.process.ended()? {
                bail!("the server ended with {status}:\n{}", self.log());
            }
            if Instant::now() > deadline {
                bail!("the server does not answer:\n{}", self.log());
            }
        }
        Ok(())
    }

    /// ejabberd listens before it has its user.
    fn is_set_up(&self) -> bool {
        let folder = self.folder.path();
        !folder.join("ejabberd.yml").exists() || folder.join("registered").exists()
    }
}
