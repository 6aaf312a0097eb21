//! Debian packages.

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, find, run};

/// A program and the packages that bring it.
const WANTED: [(&str, &[&str]); 8] = [
    ("turnserver", &["coturn"]),
    ("turnutils_uclient", &["coturn"]),
    ("ethtool", &["ethtool"]),
    ("ip", &["iproute2"]),
    ("nft", &["nftables"]),
    ("tcpdump", &["tcpdump"]),
    ("cc", &["gcc", "libc6-dev"]),
    ("c++", &["g++"]),
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
apt-get install --quiet --yes --no-install-recommends "$@"
"#;

/// The packages of programs that are not there.
pub fn missing() -> Vec<&'static str> {
    let mut packages: Vec<&str> = WANTED
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .flat_map(|(_, packages)| packages.iter().copied())
        .collect();
    packages.dedup();
    packages
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
