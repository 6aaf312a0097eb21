//! Debian packages.

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, find, run};

/// A program, or a file by its whole path, and the packages that bring it.
type Wanted = (&'static str, &'static [&'static str]);

/// For everything.
pub const WANTED: [Wanted; 12] = [
    ("turnserver", &["coturn"]),
    ("turnutils_uclient", &["coturn"]),
    ("ethtool", &["ethtool"]),
    ("ip", &["iproute2"]),
    ("nft", &["nftables"]),
    ("openssl", &["openssl"]),
    ("sysctl", &["procps"]),
    ("tcpdump", &["tcpdump"]),
    ("setpriv", &["util-linux"]),
    ("systemd-analyze", &["systemd"]),
    ("cc", &["gcc", "libc6-dev"]),
    ("c++", &["g++"]),
];

/// For virtual machines with Debian's kernels.
pub const WANTED_FOR_MACHINES: [Wanted; 5] = [
    ("qemu-system-x86_64", &["qemu-system-x86"]),
    ("xz", &["xz-utils"]),
    ("strip", &["binutils"]),
    ("setpriv", &["util-linux"]),
    ("/usr/share/keyrings/debian-archive-keyring.gpg", &["debian-archive-keyring"]),
];

/// A policy-rc.d that answers 101 keeps the packages' scripts from starting services. One that is there already is left alone.
const INSTALL: &str = r#"
set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet
apt-get -o DPkg::Lock::Timeout=300 install --quiet --yes --no-install-recommends "$@"
"#;

/// The packages of programs that are not there.
pub fn missing(wanted: &[Wanted]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect();
    packages.dedup();
    packages
}

/// Installs what is missing of these, saying so before.
pub fn ensure(wanted: &[Wanted]) -> Result<()> {
    let missing = missing(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("setup: Debian packages: {}", missing.join(" "));
    install(&missing)
}

/// Installs packages without starting any service.
pub fn install(packages: &[&str]) -> Result<()> {
    if find("apt-get").is_none() {
        bail!(
            "there is no apt-get here; install by other means what these packages bring: {}",
            packages.join(" ")
        );
    }
    run(as_root("sh")?.args(["-c", INSTALL, "install"]).args(packages))
        .with_context(|| format!("cannot install {}", packages.join(" ")))
}
