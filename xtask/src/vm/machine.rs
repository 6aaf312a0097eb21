//! A virtual machine: QEMU with a kernel and a file system in memory, and what its first process tells.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use turn_testkit::process::Process;

use super::guest::Message;
use crate::interrupt;

const QEMU: &str = "qemu-system-x86_64";
/// From the start to the first message, on a busy machine.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Lines of the console that are shown when something went wrong.
const CONSOLE_LINES: usize = 30;

/// Why a machine was ended that had something to do.
pub const OUT_OF_TIME: &str = "the machine has not ended in time";

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    pub kernel: &'a Path,
    pub initramfs: &'a Path,
    /// Where the kernel's console goes.
    pub console: &'a Path,
    /// Whether the processor's own virtualization is used.
    pub kvm: bool,
    /// It is ended when it is still running then.
    pub deadline: Instant,
}

impl Machine<'_> {
    /// Runs it to its end. `told` is called with each message.
    pub fn run(&self, mut told: impl FnMut(Message)) -> Result<()> {
        let outcome = self.run_to_done(&mut told);
        outcome.map_err(|error| {
            let console = fs::read(self.console).unwrap_or_default();
            let console = String::from_utf8_lossy(&console);
            let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
            let last = lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n");
            let qemu = fs::read_to_string(self.qemu_log()).unwrap_or_default();
            anyhow!("{error:#}; the console ({}) ends with\n{last}\n{qemu}", self.console.display())
        })
    }

    fn run_to_done(&self, told: &mut impl FnMut(Message)) -> Result<()> {
        let mut process =
            Process::spawn(&mut self.command()?).with_context(|| format!("cannot run {QEMU}"))?;
        let stdout = process.child().stdout.take().context("the guest's messages")?;
        let (send, messages) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                // The firmware may write to the port as well.
                if let Ok(message) = serde_json::from_slice(&line)
                    && send.send(message).is_err()
                {
                    return;
                }
            }
        });
        let start = Instant::now();
        let mut booted = false;
        loop {
            interrupt::check()?;
            if Instant::now() > self.deadline {
                bail!(OUT_OF_TIME);
            }
            match messages.recv_timeout(Duration::from_millis(200)) {
                Ok(Message::Done) => break,
                Ok(message) => {
                    booted = true;
                    told(message);
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the machine stopped before its time"),
                Err(RecvTimeoutError::Timeout) if !booted && start.elapsed() > BOOT_LIMIT => {
                    bail!("the machine has said nothing for {} s", BOOT_LIMIT.as_secs())
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        process.wait(Duration::from_secs(10))?;
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(QEMU);
        match self.kvm {
            true => command.args(["-accel", "kvm", "-cpu", "host"]),
            // The guest's clock counts its instructions, and skips what it would sleep: however busy the host is, the guest has the
            // time that it needs. Page tables of five levels are of no use here, and old kernels stumble over them.
            false => command.args([
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-rtc",
                "clock=vm",
                "-cpu",
                "max,la57=off",
            ]),
        };
        let console = format!("file:{}", self.console.display());
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .args(["-machine", "q35", "-smp", "1", "-m", "2048", "-serial", &console])
            .args(["-chardev", "stdio,id=messages,signal=off", "-serial", "chardev:messages"])
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", "console=ttyS0 panic=-1 oops=panic random.trust_cpu=on net.ifnames=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.qemu_log())?);
        Ok(command)
    }

    /// Where what QEMU itself says goes.
    fn qemu_log(&self) -> PathBuf {
        self.console.with_extension("qemu.log")
    }
}
