//! `--metrics`: what a scraper reads, and what a real Prometheus makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use turn_testkit::lab::Topology;
use turn_testkit::offload::{Offload, PATIENCE, wait_until};
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;
use turn_testkit::traffic::{Channel, Traffic};
use turn_testkit::turn_client::TurnClient;

use crate::{CHANNEL, options};

pub const PORT: u16 = 9641;

/// The body of an HTTP answer inside the server's namespace.
pub fn get(offload: &Offload, port: u16, path: &str, accept: &str) -> Option<String> {
    let ask = || {
        let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nAccept: {accept}\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.0 200 ").then(|| body.to_owned())
    };
    offload.lab.server.enter(ask).expect("the server's namespace")
}

fn samples(offload: &Offload) -> BTreeMap<String, f64> {
    let text = get(offload, PORT, "/metrics", "*/*").expect("metrics");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

pub fn traffic(client: &mut TurnClient) -> u64 {
    let traffic = Traffic { stream: 1, sizes: 100..=900, rate: 500, duration: Duration::from_secs(1) };
    let report = traffic.round_trips(&mut Channel { client, number: CHANNEL }).unwrap();
    assert_eq!(report.verify(), Ok(()));
    report.sent
}

/// A program of the prometheus package.
pub fn tool(name: &str) -> PathBuf {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.tools/prometheus/usr/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([unpacked.into()])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("there is no {name}; `cargo xtask setup` brings it"))
}

#[test]
fn metrics_say_what_the_sessions_say() {
    for (topology, mode, ways) in [
        (Topology::Two, "native", [("srv0", "client_to_peer"), ("srv1", "peer_to_client")]),
        (Topology::One, "generic", [("srv0", "client_to_peer"), ("srv0", "peer_to_client")]),
    ] {
        let mut offload =
            options().topology(topology).mode(mode).daemon(&["--metrics", &PORT.to_string()]).start();
        let (mut client, _) = offload.allocated_client();
        let echo = offload.echo();
        offload.bind_and_arm(&mut client, CHANNEL, &echo);
        traffic(&mut client);
        let session = offload.session(&client, CHANNEL).unwrap();
        let before = samples(&offload);
        for ((interface, direction), counts) in
            ways.into_iter().zip([session.client_to_peer, session.peer_to_client])
        {
            for (metric, path, expected) in [
                ("packets", "kernel", counts.kernel_packets),
                ("packets", "userspace", counts.spilled_packets),
                ("bytes", "kernel", counts.kernel_bytes),
                ("bytes", "userspace", counts.spilled_bytes),
            ] {
                let name = format!(
                    "turnbpf_{metric}_total{{interface=\"{interface}\",direction=\"{direction}\",path=\"{path}\"}}"
                );
                assert_eq!(before.get(&name), Some(&(expected as f64)), "{name}");
            }
        }
        let value = |samples: &BTreeMap<String, f64>, name: &str| {
            *samples.get(name).unwrap_or_else(|| panic!("no {name} in {samples:#?}"))
        };
        assert_eq!(value(&before, "turnbpf_sessions{state=\"kernel\",reason=\"\"}"), 1.0);
        assert_eq!(value(&before, "turnbpf_allocations"), 1.0);
        assert_eq!(value(&before, "turnbpf_map_entries{map=\"flows\"}"), 2.0);
        assert_eq!(value(&before, "turnbpf_map_max_entries{map=\"flows\"}"), 65_536.0);
        assert_eq!(value(&before, &format!("turnbpf_attached{{interface=\"srv0\",mode=\"{mode}\"}}")), 1.0);
        assert!(value(&before, "turnbpf_lease_changes_total{event=\"armed\"}") >= 2.0);
        assert!(value(&before, "process_resident_memory_bytes") > 1e6);
        let status = offload.daemon().status().unwrap();
        let heartbeats = value(&before, "turnbpf_pass_total{reason=\"heartbeat\"}");
        assert!(heartbeats > 0.0 && heartbeats <= status.reasons["heartbeat"] as f64);

        // What a session carried stays counted when it is over, and none goes down.
        client.refresh(0).unwrap();
        offload.wait_until_unbound(&client, CHANNEL);
        let after = samples(&offload);
        for (name, value) in before.iter().filter(|(name, _)| name.contains("_total")) {
            assert!(after[name] >= *value, "{name} went from {value} to {}", after[name]);
        }
        assert_eq!(value(&after, "turnbpf_sessions{state=\"kernel\",reason=\"\"}"), 0.0);
        assert_eq!(value(&after, "turnbpf_revocations_total{reason=\"refreshed_to_zero\"}"), 1.0);
        assert_eq!(value(&after, "turnbpf_session_duration_seconds_count"), 1.0);
        let bytes = value(&after, "turnbpf_session_bytes_sum{direction=\"client_to_peer\"}");
        assert_eq!(
            bytes,
            (session.client_to_peer.kernel_bytes + session.client_to_peer.spilled_bytes) as f64
        );
        assert!(get(&offload, PORT, "/", "*/*").is_none());
    }
}

#[test]
fn metrics_have_as_many_series_whoever_talks() {
    let offload = options().daemon(&["--metrics", &PORT.to_string()]).start();
    let names = |offload: &Offload| samples(offload).into_keys().collect::<Vec<_>>();
    let (mut first, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut first, CHANNEL, &echo);
    let before = names(&offload);
    for _ in 0..20 {
        let (mut client, _) = offload.allocated_client();
        client.channel_bind(CHANNEL, echo.address()).unwrap();
        offload.wait_for_session(&client, CHANNEL, |_| true);
    }
    assert_eq!(names(&offload), before);
    // Nobody outside this host is answered.
    let address = SocketAddr::new(offload.listener().ip(), PORT);
    let connected = offload.lab.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE).is_ok());
    assert!(!connected.unwrap());
}

#[test]
fn promtool_finds_nothing_to_mend() {
    let offload = options().daemon(&["--metrics", &PORT.to_string()]).start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);
    client.refresh(0).unwrap();
    offload.wait_until_unbound(&client, CHANNEL);
    let text = get(&offload, PORT, "/metrics", "text/plain").expect("metrics");
    let mut command = std::process::Command::new(tool("promtool"));
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

#[test]
fn a_real_prometheus_reads_live_rates() {
    const PROMETHEUS: u16 = 9090;
    let offload = options().daemon(&["--metrics", &PORT.to_string()]).start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);

    let folder = ScratchFolder::new("prometheus").unwrap();
    let configuration = folder.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n\
         - job_name: turn-bpf\n  static_configs: [{{targets: ['127.0.0.1:{PORT}']}}]\n"
    );
    fs::write(&configuration, text).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut command = offload.lab.server.command(tool("prometheus"));
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"));
    let mut prometheus = Process::spawn(command.stdout(Stdio::null()).stderr(log)).unwrap();

    let query = |query: &str| -> Vec<f64> {
        let answer = get(&offload, PROMETHEUS, &format!("/api/v1/query?query={query}"), "*/*");
        let answer: Value = answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let results = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        results.iter().filter_map(|one| one["value"][1].as_str()?.parse().ok()).collect()
    };
    let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let start = std::time::Instant::now();
    while query("up") != [1.0] {
        assert!(start.elapsed() < 6 * PATIENCE, "{}", said());
        std::thread::sleep(Duration::from_millis(50));
    }
    traffic(&mut client);
    let session = offload.session(&client, CHANNEL).unwrap();
    let packets = (session.client_to_peer.packets() + session.peer_to_client.packets()) as f64;
    wait_until("all packets in Prometheus", || query("sum(turnbpf_packets_total)") == [packets]);
    let share = query("sum(turnbpf_packets_total%7Bpath=%22kernel%22%7D)/sum(turnbpf_packets_total)");
    let kernel = (session.client_to_peer.kernel_packets + session.peer_to_client.kernel_packets) as f64;
    assert!(kernel > 0.0 && (share[0] - kernel / packets).abs() < 1e-9, "{share:?}, {session:?}");
    let rate = query("sum(rate(turnbpf_bytes_total%7Bpath=%22kernel%22%7D%5B1m%5D))");
    assert!(rate[0] > 0.0, "{rate:?}");
    prometheus.stop(Signal::TERM, PATIENCE).unwrap();
}
