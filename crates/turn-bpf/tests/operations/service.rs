//! turn-bpf as a service: what it tells the service manager, and the unit that packages bring.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use turn_testkit::lab::{Lab, Topology};
use turn_testkit::offload::PATIENCE;
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;

use crate::{CHANNEL, options};

const BINARY: &str = env!("CARGO_BIN_EXE_turn-bpf");
const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd/turn-bpf.service");
const WATCHDOG: Duration = Duration::from_millis(400);

/// The socket of a service manager, and what it hears.
struct Manager {
    socket: UnixDatagram,
    folder: ScratchFolder,
}

impl Manager {
    fn new() -> Self {
        let folder = ScratchFolder::new("notify").unwrap();
        let socket = UnixDatagram::bind(folder.path().join("socket")).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(folder.path().join("socket"), Permissions::from_mode(0o777)).unwrap();
        Self { socket, folder }
    }

    fn environment(&self) -> [String; 2] {
        let socket = self.folder.path().join("socket");
        [format!("NOTIFY_SOCKET={}", socket.display()), format!("WATCHDOG_USEC={}", WATCHDOG.as_micros())]
    }

    fn hear(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).unwrap();
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message).ok()?;
        Some(String::from_utf8_lossy(&message[..length]).trim().to_owned())
    }

    fn wait_for(&self, wanted: &str) {
        let start = Instant::now();
        let mut heard = Vec::new();
        while start.elapsed() < 3 * PATIENCE {
            match self.hear(PATIENCE) {
                Some(message) if message == wanted => return,
                message => heard.extend(message),
            }
        }
        panic!("{wanted} was not among {heard:?}");
    }
}

#[test]
fn the_service_manager_is_told() {
    let manager = Manager::new();
    let [socket, watchdog] = manager.environment();
    let mut offload = options().within(&["env", &socket, &watchdog]).start();
    manager.wait_for("READY=1");
    manager.wait_for("STATUS=2 interfaces, 0 of 0 sessions in the kernel");
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    let busy = "STATUS=2 interfaces, 1 of 1 sessions in the kernel";
    let start = Instant::now();
    loop {
        crate::metrics::traffic(&mut client);
        let heard: Vec<_> = std::iter::from_fn(|| manager.hear(Duration::from_millis(1))).collect();
        if heard.iter().any(|message| message == busy) {
            break;
        }
        assert!(start.elapsed() < 3 * PATIENCE, "{heard:?}");
    }
    manager.wait_for("WATCHDOG=1");
    // A daemon that hangs says nothing.
    offload.daemon().process().signal(Signal::STOP).unwrap();
    while manager.hear(Duration::from_millis(50)).is_some() {}
    assert_eq!(manager.hear(3 * WATCHDOG), None);
    offload.daemon().process().signal(Signal::CONT).unwrap();
    manager.wait_for("WATCHDOG=1");
    assert!(offload.take_daemon().stop().unwrap().success());
    manager.wait_for("STOPPING=1");
}

/// The values of a key of the unit.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn the_unit_runs_with_its_own_user_and_capabilities() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let capabilities = values(&unit, "AmbientCapabilities");
    assert_eq!(capabilities, values(&unit, "CapabilityBoundingSet"));
    let capabilities: Vec<_> =
        capabilities[0].split(' ').map(|name| name.strip_prefix("CAP_").unwrap().to_lowercase()).collect();
    let set = format!("-all,+{}", capabilities.join(",+"));
    assert_eq!(values(&unit, "User"), ["turn-bpf"]);

    let lab = Lab::new(Topology::Two).unwrap();
    let manager = Manager::new();
    let folder = manager.folder.path();
    let binary = folder.join("turn-bpf");
    fs::copy(BINARY, &binary).unwrap();
    let control = folder.join("control.sock");
    let start = values(&unit, "ExecStart")[0].replace("/usr/bin/turn-bpf", &binary.display().to_string());
    let start = start
        .replace("$TURN_BPF_OPTIONS", &format!("--control {}", control.display()))
        .replace("$TURN_BPF_INTERFACES", "srv0 srv1");
    let mut command = lab.server.command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    command.arg(format!("--bounding-set={set}")).arg(format!("--inh-caps={set}"));
    command.arg(format!("--ambient-caps={set}")).arg("env").args(manager.environment());
    command.args(start.split_whitespace()).stdout(Stdio::null());
    let log = folder.join("log");
    let mut daemon = Process::spawn(command.stderr(File::create(&log).unwrap())).unwrap();
    manager.wait_for("READY=1");
    manager.wait_for("WATCHDOG=1");

    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t")).unwrap_or_default()
    };
    // capability(7): CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
    let three = format!("{:016x}", (1_u64 << 12) | (1 << 38) | (1 << 39));
    assert_eq!([field("CapEff"), field("CapBnd")], [three.as_str(), three.as_str()]);
    assert_eq!(field("NoNewPrivs"), "1");
    assert!(field("Uid").starts_with("65534\t65534"), "{status}");
    let said = Command::new(BINARY).args(["status", "--control"]).arg(&control).output().unwrap();
    assert!(said.status.success() && String::from_utf8_lossy(&said.stdout).contains("srv1"), "{said:?}");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.lines().all(|line| !line.contains("WARN") || line.contains("tc mode")), "{log}");
    assert!(daemon.stop(Signal::TERM, PATIENCE).unwrap().success());
}

#[test]
fn the_unit_has_no_mistakes_and_little_exposure() {
    let unit = fs::read_to_string(UNIT).unwrap();
    let needs = ["Requires=", "Requisite=", "BindsTo=", "PartOf=", "Wants="];
    assert!(needs.iter().all(|need| !unit.contains(need)), "turn-bpf must not take the server along");
    let folder = ScratchFolder::new("unit").unwrap();
    let copy = folder.path().join("turn-bpf.service");
    fs::write(&copy, unit.replace("/usr/bin/turn-bpf", BINARY)).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&copy).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    assert_eq!(analyze(&["verify", "--man=no"]), (true, String::new()));
    // From 0 to 100; a unit without any restriction has 96.
    let (is_safe, said) = analyze(&["security", "--no-pager", "--offline=yes", "--threshold=25"]);
    assert!(is_safe, "{said}");
}
