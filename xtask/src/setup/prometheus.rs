//! Prometheus and its promtool, which read what turn-bpf counts, from the distribution's package. It is unpacked and not
//! installed: nothing starts, and of what it depends on only the C library is needed.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{as_root, find, root, run};

const FOLDER: &str = ".tools/prometheus";

/// Downloads the package into the present folder and unpacks it there.
const UNPACK: &str = r#"
set -e
apt-get download --quiet prometheus
dpkg-deb --extract prometheus_*.deb .
rm -f prometheus_*.deb
"#;

/// Whether both programs are there.
pub fn is_installed() -> bool {
    ["prometheus", "promtool"]
        .iter()
        .all(|program| find(program).is_some() || root().join(FOLDER).join("usr/bin").join(program).is_file())
}

/// Gets them.
pub fn install() -> Result<()> {
    if find("apt-get").is_none() {
        bail!("there is no apt-get here; install prometheus and promtool by other means");
    }
    let folder = root().join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    run(as_root("apt-get")?.args(["update", "--quiet"]))?;
    run(Command::new("sh").args(["-c", UNPACK]).current_dir(&folder)).context("cannot unpack prometheus")
}
