//! The first process of the virtual machines of `cargo xtask vm`: loads modules, runs the steps that the host wants, tells what they say
//! through the second serial port, and switches the machine off.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

#[path = "../vm/guest.rs"]
mod guest;

use guest::{Message, PLAN, Plan, Step};

const PORT: &str = "/dev/ttyS1";
const POLL: Duration = Duration::from_millis(20);

type Port = Arc<Mutex<File>>;

fn main() {
    if let Err(error) = run() {
        eprintln!("vm-init: {error:#}");
    }
    rustix::fs::sync();
    let error = reboot(RebootCommand::PowerOff);
    eprintln!("vm-init: the machine does not switch itself off: {error:?}");
}

fn run() -> Result<()> {
    let folders =
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/run"), ("tmpfs", "/tmp")];
    for (kind, folder) in folders {
        mount(kind, folder, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {folder}"))?;
    }
    let port = OpenOptions::new().write(true).open(PORT).with_context(|| PORT)?;
    raw(&port)?;
    let port = Arc::new(Mutex::new(port));
    let told = steps(&port);
    if let Err(error) = &told {
        tell(&port, &Message::Failed { why: format!("{error:#}") })?;
    }
    tell(&port, &Message::Done)
}

/// Lines are to arrive as they are.
fn raw(port: &File) -> Result<()> {
    let mut settings = rustix::termios::tcgetattr(port)?;
    settings.make_raw();
    Ok(rustix::termios::tcsetattr(port, rustix::termios::OptionalActions::Now, &settings)?)
}

fn steps(port: &Port) -> Result<()> {
    let plan: Plan = serde_json::from_slice(&fs::read(PLAN).with_context(|| PLAN)?)?;
    for module in &plan.modules {
        let file = File::open(module).with_context(|| module.display().to_string())?;
        finit_module(file.as_fd(), c"", 0).with_context(|| format!("cannot load {}", module.display()))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    tell(port, &Message::Booted { release })?;
    for (number, step) in plan.steps.iter().enumerate() {
        let start = Instant::now();
        let code = self::step(port, number, step)?;
        let milliseconds = u64::try_from(start.elapsed().as_millis())?;
        tell(port, &Message::Ended { step: number, code, milliseconds })?;
    }
    Ok(())
}

/// Runs a step to its end; its exit code, or `None` if it was killed.
fn step(port: &Port, number: usize, step: &Step) -> Result<Option<i32>> {
    let mut child = Command::new(&step.program)
        .args(&step.arguments)
        .current_dir(&step.folder)
        .envs(step.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", step.program.display()))?;
    let pipes: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|pipe| Box::new(pipe) as _),
        child.stderr.take().map(|pipe| Box::new(pipe) as _),
    ];
    let readers = pipes.into_iter().flatten().map(|pipe| pass_on(port, number, pipe)).collect::<Vec<_>>();
    let status = wait(&mut child, Duration::from_secs(step.limit_seconds))?;
    if status.is_none() {
        let line = format!("killed: it has not ended after {} s", step.limit_seconds);
        tell(port, &Message::Line { step: number, line })?;
    } else {
        // Whoever it left behind may hold its pipes for ever, so a killed one's are not waited for.
        for reader in readers {
            let _panicked = reader.join();
        }
    }
    Ok(status.and_then(|status| status.code()))
}

fn pass_on(port: &Port, number: usize, pipe: Box<dyn Read + Send>) -> thread::JoinHandle<()> {
    let port = Arc::clone(port);
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if tell(&port, &Message::Line { step: number, line }).is_err() {
                return;
            }
        }
    })
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn tell(port: &Port, message: &Message) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    port.write_all(&line).with_context(|| Path::new(PORT).display().to_string())
}
