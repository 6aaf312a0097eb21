//! What the servers and clients need: from Debian, crates.io, PyPI and npm, the latter three and what is newer than this Debian into
//! the ignored folder .tools/interop.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cargo::cargo;
use crate::command::{find, output, root, run};
use crate::setup::packages;

const TURN_RS: &str = "4.1.5";
const WEBRTC_RS: &str = "0.17.2";
const AIOICE: &str = "0.13.0";
const PLAYWRIGHT: &str = "1.65.1";
const NODE_TURN: &str = "0.0.6";

/// Something to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// coturn of Debian's newest, with its libraries.
    CoturnOfSid,
    /// Debian's ejabberd, whose p1_stun is also eturnal's.
    Ejabberd,
    /// turn-server, from crates.io.
    TurnRs,
    /// The example server of the crate turn, from crates.io.
    WebrtcRs,
    /// node-turn, from npm.
    NodeTurn,
    /// aioice, from PyPI.
    Aioice,
    /// Debian's Chromium, and playwright-core from npm.
    Chromium,
    /// Programs of this project around client libraries from crates.io.
    Drivers,
}

/// The folder of all tools.
pub fn folder() -> PathBuf {
    root().join(".tools/interop")
}

/// Where the example server of webrtc-rs, turn-server and the like are.
pub fn rust_program(name: &str) -> PathBuf {
    folder().join("rust/bin").join(name)
}

/// A driver around a client library.
pub fn driver(name: &str) -> PathBuf {
    folder().join("target/debug").join(name)
}

/// A file of this project that another program runs.
pub fn script(name: &str) -> PathBuf {
    root().join("xtask/interop").join(name)
}

pub fn python() -> PathBuf {
    folder().join("python/bin/python")
}

pub fn node_modules() -> PathBuf {
    folder().join("node/node_modules")
}

/// Where Debian's newest coturn was unpacked.
pub fn sid() -> PathBuf {
    folder().join("sid/root")
}

/// The version of that coturn, which moves on with Debian; "none" if it is not there.
pub fn sid_version() -> String {
    let archives = fs::read_dir(folder().join("sid/cache/archives")).into_iter().flatten().flatten();
    let names = archives.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let version = |name: String| Some(name.strip_prefix("coturn_")?.split('_').next()?.to_owned());
    names.into_iter().find_map(version).unwrap_or_else(|| "none".to_owned())
}

/// Installs what is missing, and says it before.
pub fn ensure(tools: impl Iterator<Item = Tool>) -> Result<()> {
    let mut tools: Vec<Tool> = tools.collect();
    tools.sort_unstable();
    tools.dedup();
    let mut missing_packages: Vec<&str> = tools.iter().flat_map(|tool| tool.missing_packages()).collect();
    missing_packages.sort_unstable();
    missing_packages.dedup();
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| !tool.is_installed()).collect();
    if !missing_packages.is_empty() || !missing.is_empty() {
        eprintln!("interop will install:");
        if !missing_packages.is_empty() {
            eprintln!("  - Debian packages: {}", missing_packages.join(" "));
        }
        for tool in &missing {
            eprintln!("  - {}", tool.announcement());
        }
    }
    if !missing_packages.is_empty() {
        packages::install(&missing_packages)?;
    }
    for tool in missing {
        eprintln!("interop: {}", tool.announcement());
        tool.install()?;
        if !tool.is_installed() {
            bail!("it has been installed, and is not there: {}", tool.announcement());
        }
    }
    if tools.contains(&Tool::Drivers) {
        eprintln!("interop: cargo build of xtask/interop/drivers");
        build_drivers()?;
    }
    Ok(())
}

impl Tool {
    /// Debian packages that it needs, by the programs that they bring.
    fn missing_packages(self) -> Vec<&'static str> {
        let wanted: &[(&str, &[&str])] = match self {
            Self::CoturnOfSid => &[("dpkg-deb", &["dpkg"])],
            Self::Ejabberd => &[("ejabberdctl", &["ejabberd"])],
            Self::TurnRs => &[("protoc", &["protobuf-compiler", "libprotobuf-dev"])],
            Self::NodeTurn => &[("node", &["nodejs"]), ("npm", &["npm"])],
            Self::Aioice => &[("python3", &["python3", "python3-venv"])],
            Self::Chromium => &[("node", &["nodejs"]), ("npm", &["npm"]), ("chromium", &["chromium"])],
            Self::WebrtcRs | Self::Drivers => &[],
        };
        let missing = wanted.iter().filter(|(program, _)| find(program).is_none());
        missing.flat_map(|(_, packages)| packages.iter().copied()).collect()
    }

    fn announcement(self) -> String {
        match self {
            Self::CoturnOfSid => {
                "coturn of Debian sid with all its libraries, into .tools/interop/sid (about 20 MB)".into()
            }
            Self::TurnRs => format!(
                "turn-server {TURN_RS} from crates.io into .tools/interop/rust (about 7 minutes of building)"
            ),
            Self::WebrtcRs => format!(
                "the example server of turn {WEBRTC_RS} from crates.io into .tools/interop/rust (some minutes)"
            ),
            Self::NodeTurn => format!("node-turn {NODE_TURN} from npm into .tools/interop/node"),
            Self::Aioice => {
                format!("aioice {AIOICE} from PyPI into the virtual environment .tools/interop/python")
            }
            Self::Chromium => format!("playwright-core {PLAYWRIGHT} from npm into .tools/interop/node"),
            // Built each time, and Debian's own.
            Self::Drivers | Self::Ejabberd => String::new(),
        }
    }

    fn is_installed(self) -> bool {
        match self {
            Self::CoturnOfSid => sid().join("usr/bin/turnserver").exists(),
            Self::TurnRs => rust_program("turn-server").exists(),
            Self::WebrtcRs => rust_program("turn_server_udp").exists(),
            Self::NodeTurn => has_node_module("node-turn", NODE_TURN),
            Self::Chromium => has_node_module("playwright-core", PLAYWRIGHT),
            Self::Aioice => {
                let check =
                    format!("import importlib.metadata as m; assert m.version('aioice') == '{AIOICE}'");
                python().exists() && output(Command::new(python()).args(["-c", &check])).is_ok()
            }
            Self::Drivers | Self::Ejabberd => true,
        }
    }

    fn install(self) -> Result<()> {
        match self {
            Self::CoturnOfSid => fetch_from_sid("coturn"),
            Self::TurnRs => cargo_install(&["turn-server", "--version", TURN_RS]),
            Self::WebrtcRs => {
                cargo_install(&["turn", "--version", WEBRTC_RS, "--example", "turn_server_udp"])
            }
            Self::NodeTurn => npm_install(&format!("node-turn@{NODE_TURN}")),
            Self::Chromium => npm_install(&format!("playwright-core@{PLAYWRIGHT}")),
            Self::Aioice => {
                let environment = folder().join("python");
                run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
                run(Command::new(python())
                    .args(["-m", "pip", "install", "--quiet"])
                    .arg(format!("aioice=={AIOICE}")))
            }
            Self::Drivers | Self::Ejabberd => Ok(()),
        }
    }
}

fn cargo_install(what: &[&str]) -> Result<()> {
    let mut command = cargo();
    command.env_remove("CARGO_TARGET_DIR").arg("install").args(what).args(["--locked", "--root"]);
    run(command.arg(folder().join("rust")))
}

fn build_drivers() -> Result<()> {
    let mut command = cargo();
    command.env("CARGO_TARGET_DIR", folder().join("target"));
    command.args(["build", "--locked", "--manifest-path"]).arg(script("drivers/Cargo.toml"));
    run(&mut command)
}

fn npm_install(package: &str) -> Result<()> {
    let prefix = folder().join("node");
    fs::create_dir_all(&prefix)?;
    let mut command = Command::new("npm");
    command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&prefix).arg(package);
    run(&mut command)
}

fn has_node_module(name: &str, version: &str) -> bool {
    let manifest = fs::read_to_string(node_modules().join(name).join("package.json")).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap_or_default();
    manifest["version"] == version
}

/// Unpacks a package of Debian sid, and everything that it depends on, into a folder of its own. apt gets folders of its own too, in
/// which nothing is installed yet, so the system's packages stay as they are.
fn fetch_from_sid(package: &str) -> Result<()> {
    let folder = folder().join("sid");
    for part in ["etc/parts", "etc/preferences.d", "state/lists/partial", "cache/archives/partial", "root"] {
        fs::create_dir_all(folder.join(part))?;
    }
    let sources = folder.join("etc/sources.list");
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&sources, format!("deb [signed-by={keyring}] http://deb.debian.org/debian sid main\n"))?;
    fs::write(folder.join("state/status"), "")?;
    let apt = || {
        let mut command = Command::new("apt-get");
        let path = |part: &str| folder.join(part).display().to_string();
        for (key, value) in [
            ("Dir::Etc", path("etc")),
            ("Dir::Etc::sourcelist", path("etc/sources.list")),
            ("Dir::Etc::sourceparts", path("etc/parts")),
            ("Dir::State", path("state")),
            ("Dir::State::status", path("state/status")),
            ("Dir::Cache", path("cache")),
            // Without it apt would fetch as a user who may not write here.
            ("APT::Sandbox::User", "root".to_owned()),
        ] {
            command.arg("-o").arg(format!("{key}={value}"));
        }
        command.arg("--quiet");
        command
    };
    run(apt().arg("update"))?;
    run(apt().args(["install", "--yes", "--no-install-recommends", "--download-only", package]))?;
    let archives = folder.join("cache/archives");
    let packages = fs::read_dir(&archives).with_context(|| archives.display().to_string())?;
    for file in packages.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            unpack(&file, &folder.join("root"))?;
        }
    }
    Ok(())
}

fn unpack(package: &Path, folder: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(folder))
}
