//! The whole machine: what it is, and how much it has worked.

use std::fs;
use std::io;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::ticks;

/// How much the processors have rested until a moment.
#[derive(Clone, Copy, Debug)]
pub struct Rest {
    at: Instant,
    ticks: u64,
}

impl Rest {
    /// Until now.
    pub fn now() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks = rest_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { at: Instant::now(), ticks })
    }

    /// CPU time of all processors since then: what they did not rest. The kernel measures rest, but only samples work, and
    /// misses much of what is done in short bursts.
    pub fn work_since(&self) -> io::Result<Duration> {
        let now = Self::now()?;
        let all = now.at.duration_since(self.at) * processors();
        Ok(all.saturating_sub(ticks(now.ticks.saturating_sub(self.ticks))))
    }
}

/// idle, iowait and steal of all processors (proc(5): /proc/stat).
fn rest_ticks(stat: &str) -> Option<u64> {
    let fields = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = fields.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let [_user, _nice, _system, idle, iowait, _irq, _softirq, steal, ..] = ticks[..] else { return None };
    Some(idle + iowait + steal)
}

/// How many processors are busy with something else, measured for a second.
pub fn busy_processors() -> io::Result<f64> {
    let before = Rest::now()?;
    thread::sleep(Duration::from_secs(1));
    Ok(before.work_since()?.as_secs_f64() / before.at.elapsed().as_secs_f64())
}

/// How many there are in the machine, whichever of them this process may use.
pub fn processors() -> u32 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let per_processor = |line: &&str| line.starts_with("cpu") && !line.starts_with("cpu ");
    stat.lines().filter(per_processor).count().max(1) as u32
}

/// Processors, kernel and TURN server, in one line.
pub fn description() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model.trim());
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    format!("{} x {model}, Linux {kernel}, coturn {}", processors(), coturn_version())
}

fn coturn_version() -> String {
    let output = Command::new("turnserver").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("of unknown version").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rest_is_what_nobody_here_used() {
        let stat = "cpu  100 20 3000 900000 80000 7777 7777 2000 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(rest_ticks(stat), Some(982_000));
    }

    #[test]
    fn work_is_noticed() {
        let before = Rest::now().unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {}
        assert!(before.work_since().unwrap() > Duration::from_millis(100));
    }
}
