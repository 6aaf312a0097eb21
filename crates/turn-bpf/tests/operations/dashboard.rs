//! The dashboard and the alerts: every query against what a real Prometheus has read of a real daemon.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use turn_testkit::offload::{Offload, PATIENCE};
use turn_testkit::process::Process;
use turn_testkit::scratch::ScratchFolder;

use crate::metrics::{PORT, get, tool, traffic};
use crate::{CHANNEL, options};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
const PROMETHEUS: u16 = 9090;

fn read(name: &str) -> String {
    fs::read_to_string(format!("{FOLDER}/{name}")).unwrap()
}

/// The panels' queries by title, for all instances.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("grafana/turn-bpf.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    let queries: Vec<_> = panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{title} asks nothing");
            targets.iter().map(move |target| {
                let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "20s");
                (title.to_owned(), query.replace("$job", ".*").replace("$instance", ".*"))
            })
        })
        .collect();
    assert!(queries.len() > 20 && queries.iter().all(|(_, query)| !query.contains('$')), "{queries:#?}");
    queries
}

/// All names of metrics in a text of queries; those of recorded rules have a colon.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.filter(|word| word.starts_with("turnbpf_") || word.starts_with("process_")).collect()
}

fn ask(offload: &Offload, query: &str) -> Option<Value> {
    let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
    let answer = get(offload, PROMETHEUS, &format!("/api/v1/query?query={query}"), "*/*")?;
    serde_json::from_str(&answer).ok()
}

fn has_result(offload: &Offload, query: &str) -> bool {
    let answer = ask(offload, query).unwrap_or_default();
    answer["data"]["result"].as_array().is_some_and(|results| !results.is_empty())
}

#[test]
fn every_panel_and_every_alert_finds_its_metrics() {
    let offload = options().daemon(&["--metrics", &PORT.to_string()]).start();
    let (mut client, _) = offload.allocated_client();
    let echo = offload.echo();
    offload.bind_and_arm(&mut client, CHANNEL, &echo);

    let folder = ScratchFolder::new("dashboard").unwrap();
    let configuration = folder.path().join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 500ms}}\n\
         rule_files: ['{FOLDER}/prometheus/turn-bpf.rules.yml']\nscrape_configs:\n\
         - job_name: turn-bpf\n  static_configs: [{{targets: ['127.0.0.1:{PORT}']}}]\n"
    );
    fs::write(&configuration, text).unwrap();
    let log = fs::File::create(folder.path().join("log")).unwrap();
    let mut command = offload.lab.server.command(tool("prometheus"));
    command.arg(format!("--config.file={}", configuration.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{PROMETHEUS}"));
    let mut prometheus = Process::spawn(command.stdout(Stdio::null()).stderr(log)).unwrap();
    let said = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    let patience = 6 * PATIENCE;
    let wait_for = |what: &str, query: &str| {
        let start = std::time::Instant::now();
        while !has_result(&offload, query) {
            assert!(start.elapsed() < patience, "{what}: {query}: {:?}\n{}", ask(&offload, query), said());
            std::thread::sleep(Duration::from_millis(50));
        }
    };

    wait_for("a scrape", "turnbpf_build_info");
    traffic(&mut client);
    // So that there is a session that has ended.
    client.refresh(0).unwrap();
    offload.wait_until_unbound(&client, CHANNEL);
    let rules = read("prometheus/turn-bpf.rules.yml");
    let names = metrics_in(&rules);
    assert!(names.len() > 6, "{names:?}");
    for name in names {
        wait_for("the rules", name);
    }
    wait_for("the rules", "instance:turnbpf_kernel_share:ratio_rate5m");
    for (title, query) in queries() {
        // What hides zeros may well show nothing where all is well.
        wait_for(&title, query.strip_suffix(" > 0").unwrap_or(&query));
    }
    prometheus.stop(Signal::TERM, PATIENCE).unwrap();
}

#[test]
fn alerts_fire_when_they_are_to() {
    for (what, file) in [("check", "turn-bpf.rules.yml"), ("test", "turn-bpf.rules.test.yml")] {
        let mut promtool = Command::new(tool("promtool"));
        promtool.current_dir(format!("{FOLDER}/prometheus")).args([what, "rules", file]);
        let output = promtool.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
    // An alert that no test names is not tested.
    let tests = read("prometheus/turn-bpf.rules.test.yml");
    let rules = read("prometheus/turn-bpf.rules.yml");
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 7, "{alerts:?}");
    for alert in alerts {
        let fires = tests.lines().any(|line| line.trim() == format!("alertname: {alert}"));
        assert!(fires, "nothing tests that {alert} fires");
    }
}
