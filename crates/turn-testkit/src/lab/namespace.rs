//! One network namespace: made, entered, and removed again with all that runs in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{EgressProgram, LabError, XdpMode, pass_program};

/// In bytes.
const RECEIVE_BUFFER: usize = 8 << 20;

/// How long an interface may take to come up.
const CARRIER_LIMIT: Duration = Duration::from_secs(10);

/// A named network namespace, removed on drop.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn new(name: String) -> Result<Self, LabError> {
        run(Command::new("ip").args(["netns", "add", &name]))?;
        let namespace = Self { name };
        // Link-local addresses would otherwise be tentative for a second, and neighbour discovery with them.
        namespace.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        namespace.run("ip", &["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name, for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside. Its process is the program itself, with /sys of the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a program inside to its end; it has to succeed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<(), LabError> {
        run(self.command(program).args(arguments)).map(drop)
    }

    /// Like [`Namespace::run`], but returns standard output.
    pub fn output(&self, program: &str, arguments: &[&str]) -> Result<String, LabError> {
        run(self.command(program).args(arguments))
    }

    /// Calls `inside` on a thread of its own in the namespace. Sockets made there stay in it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let enter = || -> io::Result<()> {
            let file = File::open(format!("/run/netns/{}", self.name))?;
            Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
        };
        thread::scope(|scope| {
            let thread = scope.spawn(|| enter().map(|()| inside()));
            match thread.join() {
                Ok(result) => {
                    result.map_err(|source| LabError::Enter { namespace: self.name.clone(), source })
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Sets a kernel parameter under /proc/sys/net, such as `ipv4/ip_forward`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        self.enter(|| fs::write(format!("/proc/sys/net/{key}"), value))?.map_err(|source| LabError::Sysctl {
            namespace: self.name.clone(),
            key: key.into(),
            source,
        })
    }

    /// Attaches an XDP program that lets everything pass, until the returned link is closed.
    pub fn attach_pass(&self, interface: &str, mode: XdpMode) -> Result<OwnedFd, LabError> {
        self.enter(|| pass_program::attach(interface, mode))?.map_err(|source| LabError::Attach {
            namespace: self.name.clone(),
            interface: interface.to_owned(),
            source,
        })
    }

    /// Attaches a program that lets everything pass to what leaves by an interface, until the returned link is closed.
    pub fn attach_egress(&self, interface: &str, program: EgressProgram) -> Result<OwnedFd, LabError> {
        self.enter(|| pass_program::attach_egress(interface, program))?.map_err(|source| LabError::Attach {
            namespace: self.name.clone(),
            interface: interface.to_owned(),
            source,
        })
    }

    /// What is attached to an interface: an XDP program, tcx programs, TC filters. Empty if nothing is.
    pub fn attached(&self, interface: &str) -> Result<Vec<String>, LabError> {
        let link = self.output("ip", &["-d", "link", "show", "dev", interface])?;
        let filters = |hook| self.output("tc", &["filter", "show", "dev", interface, hook]);
        let filters = filters("ingress")? + &filters("egress")?;
        let tcx = self.enter(|| pass_program::tcx_programs(interface))?.map_err(|source| {
            LabError::Attach { namespace: self.name.clone(), interface: interface.to_owned(), source }
        })?;
        let programs = link.lines().chain(filters.lines()).map(str::trim);
        let mut attached: Vec<String> = programs
            .filter(|line| line.contains("prog/xdp") || line.contains("bpf"))
            .map(str::to_owned)
            .collect();
        attached.extend((tcx > 0).then(|| format!("{tcx} tcx programs")));
        Ok(attached)
    }

    /// Waits until IPv6 has noticed that the interface is up, which it does by giving it a link-local address. Before that,
    /// neighbour solicitations are lost, and the next ones come a second later.
    pub(super) fn wait_for_carrier(&self, interface: &str) -> Result<(), LabError> {
        let deadline = Instant::now() + CARRIER_LIMIT;
        let ready = || {
            let addresses = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
            addresses.lines().any(|line| line.starts_with("fe80") && line.trim_end().ends_with(interface))
        };
        let waited = || {
            while !ready() {
                if Instant::now() > deadline {
                    return false;
                }
                thread::sleep(Duration::from_millis(1));
            }
            true
        };
        match self.enter(waited)? {
            true => Ok(()),
            false => {
                Err(LabError::NoCarrier { namespace: self.name.clone(), interface: interface.to_owned() })
            }
        }
    }

    /// A UDP socket in the namespace; port 0 takes any. It has room for what comes while a busy machine lets its owner wait.
    pub fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket, LabError> {
        let bind = || {
            let socket = UdpSocket::bind(address)?;
            set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER)?;
            Ok(socket)
        };
        self.enter(bind)?.map_err(|source| LabError::Bind { namespace: self.name.clone(), address, source })
    }

    /// How many datagrams the namespace has thrown away because a socket's buffer was full: what a server that is too slow
    /// loses, and nobody else is to blame for.
    pub fn udp_overflows(&self) -> Result<u64, LabError> {
        self.enter(|| {
            let read = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
            overflows_v4(&read("snmp")) + overflows_v6(&read("snmp6"))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        super::leftovers::remove_namespace(&self.name);
    }
}

/// `RcvbufErrors` of the lines `Udp: <names>` and `Udp: <numbers>`.
fn overflows_v4(snmp: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(numbers)) = (lines.next(), lines.next()) else { return 0 };
    let mut fields = names.split(' ').zip(numbers.split(' '));
    fields.find(|(name, _)| *name == "RcvbufErrors").and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

fn overflows_v6(snmp6: &str) -> u64 {
    let number = snmp6.lines().find_map(|line| line.strip_prefix("Udp6RcvbufErrors"));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

fn run(command: &mut Command) -> Result<String, LabError> {
    let line = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let line = line();
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(LabError::Command {
            command: line,
            status: output.status,
            output: [output.stdout, output.stderr]
                .iter()
                .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("; "),
        }),
        Err(source) => Err(LabError::Spawn { command: line, source }),
    }
}
