//! A stock coturn in a namespace of the lab.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use thiserror::Error;

use crate::lab::{Family, Lab, LabError, Namespace};
use crate::process::Process;
use crate::scratch::ScratchFolder;
use crate::turn_client::message::{Class, METHOD_BINDING, Message, MessageBuilder};

/// The user that every server of the lab knows.
pub const USER: &str = "user";
/// The password of [`USER`].
pub const PASSWORD: &str = "pass";
/// The realm of every server of the lab.
pub const REALM: &str = "lab";
/// The port of every listener.
pub const PORT: u16 = 3478;
/// The port of a listener for TLS and DTLS.
pub const SECURED_PORT: u16 = 5349;

/// How long a server may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(15);

/// coturn could not be started, or has ended.
#[derive(Debug, Error)]
pub enum CoturnError {
    /// A file or process operation failed.
    #[error("coturn")]
    Io(#[from] io::Error),
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// It ended instead of answering.
    #[error("coturn ended with {status}:\n{log}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// What it wrote.
        log: String,
    },
    /// It did not answer a STUN binding request in time.
    #[error("coturn does not answer:\n{log}")]
    Silent {
        /// What it wrote.
        log: String,
    },
}

/// How coturn is to be started.
#[derive(Clone, Debug)]
pub struct CoturnOptions {
    listen: Vec<IpAddr>,
    relay: Vec<IpAddr>,
    port: u16,
    secured: Option<(PathBuf, PathBuf)>,
    is_open: bool,
    arguments: Vec<String>,
}

impl CoturnOptions {
    /// Listens and relays on the lab's addresses of both families.
    pub fn of(lab: &Lab) -> Self {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| lab.addresses(family));
        Self {
            listen: vec![v4.listen, v6.listen],
            relay: vec![v4.relay, v6.relay],
            port: PORT,
            secured: None,
            is_open: false,
            arguments: Vec::new(),
        }
    }

    /// Also listens for TLS and DTLS, on [`SECURED_PORT`], with a certificate and its private key.
    pub fn secured(mut self, certificate: &Path, key: &Path) -> Self {
        self.secured = Some((certificate.into(), key.into()));
        self
    }

    /// Listens on these addresses instead.
    pub fn listen(mut self, addresses: &[IpAddr]) -> Self {
        self.listen = addresses.to_vec();
        self
    }

    /// Relays on these addresses instead.
    pub fn relay(mut self, addresses: &[IpAddr]) -> Self {
        self.relay = addresses.to_vec();
        self
    }

    /// Listens on this port instead of [`PORT`].
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Serves everybody, without authentication.
    pub fn open(mut self) -> Self {
        self.is_open = true;
        self
    }

    /// Adds arguments to the command line.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// Starts `turnserver` in the server's namespace and waits until it answers a STUN binding request.
    pub fn start(self, server: &Namespace) -> Result<Coturn, CoturnError> {
        let folder = ScratchFolder::new("coturn")?;
        let log_path = folder.path().join("log");
        let log = File::create(&log_path)?;
        let mut command = server.command("turnserver");
        command.args(["-n", "-f", "--no-cli", "--log-file", "stdout", "-r", REALM]);
        if self.is_open {
            command.arg("--no-auth");
        } else {
            command.args(["-a", "-u", &format!("{USER}:{PASSWORD}")]);
        }
        match &self.secured {
            Some((certificate, key)) => {
                command.arg("--cert").arg(certificate).arg("--pkey").arg(key);
                command.args(["--tls-listening-port", &SECURED_PORT.to_string()]);
            }
            None => drop(command.args(["--no-tls", "--no-dtls"])),
        }
        command.args(["-p", &self.port.to_string()]);
        for address in &self.listen {
            command.args(["-L", &address.to_string()]);
        }
        for address in &self.relay {
            command.args(["-E", &address.to_string()]);
        }
        command.arg("--pidfile").arg(folder.path().join("pid")).arg("--userdb").arg(folder.path().join("db"));
        command.args(&self.arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = Process::spawn(&mut command)?;
        let mut coturn = Coturn { process, options: self, log: log_path, _folder: folder };
        coturn.wait_for_answer(server)?;
        Ok(coturn)
    }
}

/// A running coturn, killed on drop.
#[derive(Debug)]
pub struct Coturn {
    process: Process,
    options: CoturnOptions,
    log: PathBuf,
    _folder: ScratchFolder,
}

impl Coturn {
    /// Starts coturn with the lab's addresses.
    pub fn start(lab: &Lab) -> Result<Self, CoturnError> {
        CoturnOptions::of(lab).start(&lab.server)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens, in one family.
    pub fn listener(&self, family: Family) -> Option<SocketAddr> {
        let ip = self.options.listen.iter().find(|ip| ip.is_ipv4() == (family == Family::V4))?;
        Some(SocketAddr::new(*ip, self.options.port))
    }

    /// User and system time that it has used.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        self.process.cpu_time()
    }

    /// What it has written.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it with signal 9.
    pub fn kill(mut self) -> io::Result<()> {
        self.process.kill().map(drop)
    }

    /// Ends it with SIGTERM.
    pub fn stop(mut self) -> io::Result<()> {
        self.process.stop(Signal::TERM, Duration::from_secs(5)).map(drop)
    }

    fn wait_for_answer(&mut self, server: &Namespace) -> Result<(), CoturnError> {
        let deadline = Instant::now() + START_LIMIT;
        for listen in self.options.listen.clone() {
            // A wildcard listener answers from where it was asked.
            let reached = match listen {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                listen => listen,
            };
            let socket = server.udp_socket(SocketAddr::new(reached, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(50)))?;
            let target = SocketAddr::new(reached, self.options.port);
            while !answers(&socket, target) {
                if let Some(status) = self.process.ended()? {
                    return Err(CoturnError::Ended { status, log: self.log() });
                }
                if Instant::now() > deadline {
                    return Err(CoturnError::Silent { log: self.log() });
                }
            }
        }
        Ok(())
    }
}

/// Whether a STUN server answers a binding request within the socket's time limit.
pub fn answers(socket: &UdpSocket, server: SocketAddr) -> bool {
    let request = MessageBuilder::new(METHOD_BINDING, Class::Request).build();
    let mut buffer = [0; 1500];
    // An earlier request may have been answered by an ICMP error, which the next call reports.
    if socket.send_to(&request, server).is_err() {
        return false;
    }
    match socket.recv_from(&mut buffer) {
        Ok((length, source)) if source == server => Message::parse(&buffer[..length]).is_ok(),
        _ => false,
    }
}
