//! The processor that everything is measured on, and the time that it has worked.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use turn_testkit::machine;

/// Keeps the calling thread on the last processor.
pub fn stay() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(machine::processors() as usize - 1);
    sched_setaffinity(None, &set)?;
    Ok(())
}

/// How long the calling thread has been running on a processor, which does not go on while others have it.
pub fn running_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The `/proc` folder of the kernel thread that takes over the network's work on the last processor where there is too much.
pub fn ksoftirqd() -> Result<String> {
    let name = format!("ksoftirqd/{}", machine::processors() - 1);
    for entry in fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        if fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            return Ok(path.to_string_lossy().into_owned());
        }
    }
    bail!("no kernel thread {name}")
}

/// How long a kernel thread has been running (`schedstat` under its `/proc` folder).
pub fn running_time_of(folder: &str) -> Result<Duration> {
    let schedstat = fs::read_to_string(format!("{folder}/schedstat"))?;
    let nanoseconds = schedstat.split(' ').next().and_then(|first| first.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("schedstat is strange")?))
}
