//! What is expected of the package.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use turn_testkit::coturn::CoturnOptions;
use turn_testkit::lab::{Family, Lab, Topology};
use turn_testkit::traffic::{Carrier as _, Channel, Echo};
use turn_testkit::turn_client::TurnClient;

use super::debian::Debian;

const CHANNEL: u16 = 0x4000;
const SERVICE: &str = "turn-bpf.service";

/// Installs the package, has a call relayed by it, and removes it.
pub fn check(package: &Path) -> Result<()> {
    let mut lab = Lab::new(Topology::Two)?;
    lab.attach_pass()?;
    step("a fresh Debian 12, booted in a container");
    let mut debian = Debian::boot(&lab.server)?;
    let before = debian.files()?;

    step("dpkg --install");
    fs::copy(package, debian.path("/tmp.deb")).with_context(|| package.display().to_string())?;
    debian.run("dpkg", &["--install", "/tmp.deb"])?;
    fs::remove_file(debian.path("/tmp.deb"))?;
    ensure!(debian.output("turn-bpf", &["--version"])?.starts_with("turn-bpf "), "turn-bpf --version");
    ensure!(debian.output("id", &["turn-bpf"]).is_ok(), "the service's user is missing");
    ensure!(property(&debian, "UnitFileState")? == "enabled", "the service does not start by itself");
    // Its condition is not met, which is no failure.
    ensure!(property(&debian, "ActiveState")? == "inactive", "it runs without an interface");
    ensure!(property(&debian, "Result")? == "exec-condition", "{}", property(&debian, "Result")?);

    step("two interfaces are named, and the service is started");
    let defaults = debian.path("/etc/default/turn-bpf");
    let text = fs::read_to_string(&defaults).context("/etc/default/turn-bpf")?;
    let named = text.replace(
        "TURN_BPF_INTERFACES=\"\"",
        &format!("TURN_BPF_INTERFACES=\"{}\"", lab.interfaces().join(" ")),
    );
    ensure!(named != text, "/etc/default/turn-bpf does not have the line to fill in:\n{text}");
    fs::write(&defaults, named)?;
    debian.run("systemctl", &["restart", SERVICE])?;
    ensure!(property(&debian, "ActiveState")? == "active", "it is not active");

    step("a call through coturn");
    let coturn = CoturnOptions::of(&lab).start(&lab.server)?;
    let addresses = lab.addresses(Family::V4);
    let socket = lab.client.udp_socket((addresses.client, 0).into())?;
    let mut client = TurnClient::new(socket, (addresses.listen, turn_testkit::coturn::PORT).into());
    let echo = Echo::start(lab.peer.udp_socket((addresses.peer, 0).into())?);
    client.allocate(None, None)?;
    client.channel_bind(CHANNEL, echo.address())?;
    let mut number = 0_u32;
    debian.wait_until("the kernel relays the call", |debian| {
        number += 1;
        let mut channel = Channel { client: &mut client, number: CHANNEL };
        channel.send(&number.to_be_bytes())?;
        let status: Value = serde_json::from_str(&debian.output("turn-bpf", &["status", "--json"])?)?;
        Ok(status["packets"]["kernel"].as_u64().is_some_and(|packets| packets > 10))
    })?;
    println!("  {}", property(&debian, "StatusText")?);
    println!(
        "  {}",
        debian
            .output("systemd-analyze", &["security", "--no-pager", SERVICE])?
            .lines()
            .last()
            .unwrap_or_default()
    );

    step("killed, it is started again");
    let first = property(&debian, "MainPID")?;
    debian.run("systemctl", &["kill", "--signal=KILL", SERVICE])?;
    debian.wait_until("it runs again", |debian| {
        Ok(property(debian, "ActiveState")? == "active" && property(debian, "MainPID")? != first)
    })?;

    step("dpkg --remove");
    debian.run("dpkg", &["--remove", "turn-bpf"])?;
    ensure!(property(&debian, "ActiveState")? == "inactive", "it runs on without its package");
    for interface in lab.interfaces() {
        let link = lab.server.output("ip", &["-details", "link", "show", "dev", interface])?;
        ensure!(!link.contains("xdp"), "a program is left: {link}");
    }
    ensure!(defaults.exists(), "what the administrator wrote is gone before its time");

    step("dpkg --purge");
    debian.run("dpkg", &["--purge", "turn-bpf"])?;
    let after = debian.files()?;
    let new: Vec<&String> = after.iter().filter(|file| before.binary_search(file).is_err()).collect();
    ensure!(new.is_empty(), "left behind: {new:?}");
    drop(coturn);
    step("nothing is left but the user");
    Ok(())
}

fn property(debian: &Debian, name: &str) -> Result<String> {
    let value = debian.output("systemctl", &["show", "--value", "--property", name, SERVICE])?;
    Ok(value.trim().to_owned())
}

fn step(what: &str) {
    println!("package: {what}");
}
