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
    let mut call = Call::begin(&lab)?;
    call.bind()?;
    call.is_relayed_in_the_kernel(&mut debian)?;
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

    step("kept from one to the next, as docs/operations.md says");
    keeps(&mut debian, &mut call)?;
    debian.run("systemctl", &["restart", SERVICE])?;

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

/// Restarts the service with `--keep`, and once more.
fn keeps(debian: &mut Debian, call: &mut Call) -> Result<()> {
    const FOLDER: &str = "/var/lib/turn-bpf";
    let drop_in = debian.path("/etc/systemd/system/turn-bpf.service.d");
    let defaults = debian.path("/etc/default/turn-bpf");
    let without = fs::read_to_string(&defaults)?;
    let with = without
        .replace("TURN_BPF_OPTIONS=\"\"", &format!("TURN_BPF_OPTIONS=\"--keep --pin-dir {FOLDER}/kept\""));
    ensure!(with != without, "/etc/default/turn-bpf does not have the line to fill in:\n{without}");
    debian.run("mkdir", &[FOLDER])?;
    debian.run("mount", &["-t", "bpf", "-o", "mode=1777", "bpf", FOLDER])?;
    fs::write(&defaults, with)?;
    fs::create_dir(&drop_in)?;
    let settings = format!("[Unit]\nRequiresMountsFor={FOLDER}\n[Service]\nReadWritePaths={FOLDER}\n");
    fs::write(drop_in.join("override.conf"), settings)?;
    debian.run("systemctl", &["daemon-reload"])?;
    // The one that ends has nothing kept.
    debian.run("systemctl", &["restart", SERVICE])?;
    call.bind()?;
    call.is_relayed_in_the_kernel(debian)?;
    let before = kernel_packets(debian)?;
    debian.run("systemctl", &["restart", SERVICE])?;
    ensure!(kernel_packets(debian)? >= before, "the counters have begun anew");
    call.is_relayed_in_the_kernel(debian)?;

    debian.run("systemctl", &["stop", SERVICE])?;
    println!("  {}", debian.output("turn-bpf", &["detach", "--pin-dir", &format!("{FOLDER}/kept")])?.trim());
    debian.run("umount", &[FOLDER])?;
    debian.run("rmdir", &[FOLDER])?;
    fs::remove_dir_all(drop_in)?;
    fs::write(&defaults, without)?;
    debian.run("systemctl", &["daemon-reload"])
}

/// A client, its peer, and a channel between them.
struct Call {
    client: TurnClient,
    echo: Echo,
    sent: u32,
}

impl Call {
    fn begin(lab: &Lab) -> Result<Self> {
        let addresses = lab.addresses(Family::V4);
        let socket = lab.client.udp_socket((addresses.client, 0).into())?;
        let mut client = TurnClient::new(socket, (addresses.listen, turn_testkit::coturn::PORT).into());
        let echo = Echo::start(lab.peer.udp_socket((addresses.peer, 0).into())?);
        client.allocate(None, None)?;
        Ok(Self { client, echo, sent: 0 })
    }

    fn bind(&mut self) -> Result<()> {
        self.client.drain()?;
        Ok(self.client.channel_bind(CHANNEL, self.echo.address())?)
    }

    /// Sends until it is.
    fn is_relayed_in_the_kernel(&mut self, debian: &mut Debian) -> Result<()> {
        let before = kernel_packets(debian)?;
        debian.wait_until("the kernel relays the call", |debian| {
            self.sent += 1;
            let mut channel = Channel { client: &mut self.client, number: CHANNEL };
            channel.send(&self.sent.to_be_bytes())?;
            Ok(kernel_packets(debian)? > before + 10)
        })
    }
}

fn kernel_packets(debian: &Debian) -> Result<u64> {
    let status: Value = serde_json::from_str(&debian.output("turn-bpf", &["status", "--json"])?)?;
    status["packets"]["kernel"].as_u64().context("turn-bpf status --json has no packets.kernel")
}

fn property(debian: &Debian, name: &str) -> Result<String> {
    let value = debian.output("systemctl", &["show", "--value", "--property", name, SERVICE])?;
    Ok(value.trim().to_owned())
}

fn step(what: &str) {
    println!("package: {what}");
}
