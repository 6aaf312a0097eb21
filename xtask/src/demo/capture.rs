//! A capture of every wire. They are taken at the far ends: frames that XDP transmits do not show on the server's own interfaces.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use turn_testkit::lab::Lab;
use turn_testkit::process::Process;

const START_LIMIT: Duration = Duration::from_secs(10);
/// The header of a capture file, which tcpdump writes once it listens.
const FILE_HEADER: u64 = 24;

/// Running captures.
#[derive(Debug)]
pub struct Captures(Vec<Process>);

impl Captures {
    /// Starts one tcpdump per wire; the files are named after `half` and the interface.
    pub fn start(lab: &Lab, folder: &Path, half: &str) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut captures = Self(Vec::new());
        for (namespace, interface) in lab.wires() {
            let file = folder.join(format!("{half}-{interface}.pcap"));
            let mut command = namespace.command("tcpdump");
            command
                .args(["-n", "-U", "-Z", "root", "-B", "16384", "-i", interface, "-w"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let _old = fs::remove_file(&file);
            let mut process = Process::spawn(&mut command).context("cannot run tcpdump")?;
            let deadline = Instant::now() + START_LIMIT;
            while fs::metadata(&file).map_or(0, |file| file.len()) < FILE_HEADER {
                if let Some(status) = process.ended()? {
                    bail!("tcpdump of {interface} ended with {status}");
                }
                if Instant::now() > deadline {
                    bail!("tcpdump does not start on {interface}");
                }
                thread::sleep(Duration::from_millis(10));
            }
            captures.0.push(process);
        }
        Ok(captures)
    }

    /// Ends all captures with what they have.
    pub fn stop(self) -> Result<()> {
        for mut process in self.0 {
            process.stop(Signal::INT, Duration::from_secs(5))?;
        }
        Ok(())
    }
}
