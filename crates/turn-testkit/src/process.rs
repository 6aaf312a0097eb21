//! Child processes that end with their owner, and what they cost.

use std::fs;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running child process, killed on drop.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts the command.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        command.spawn().map(Self::from)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// User and system time so far.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        cpu_time(self.id())
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.id() as i32).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Kills it (signal 9) and waits until it is gone.
    pub fn kill(&mut self) -> io::Result<ExitStatus> {
        self.child.kill()?;
        self.child.wait()
    }

    /// Asks it to end with `signal`, and kills it if it has not ended after `patience`.
    pub fn stop(&mut self, signal: Signal, patience: Duration) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        self.signal(signal)?;
        match self.wait(patience)? {
            Some(status) => Ok(status),
            None => self.kill(),
        }
    }

    /// Waits until it has ended, but no longer than `patience`.
    pub fn wait(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            match self.ended()? {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(10)),
                ended => return Ok(ended),
            }
        }
    }
}

impl From<Child> for Process {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone_already = self.kill();
    }
}

/// User and system time of a process, all its threads included (proc(5): /proc/PID/stat).
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_ticks(&stat).map(ticks).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, stat))
}

/// How long the threads of a process have been running, as the scheduler counts it (`/proc/PID/task/*/schedstat`): finer than
/// [`cpu_time`], and without threads that have ended.
pub fn running_time(pid: u32) -> io::Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        // A thread may end just now.
        let schedstat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanoseconds += schedstat.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Clock ticks, the unit of the kernel's CPU statistics, as a duration.
pub fn ticks(count: u64) -> Duration {
    Duration::from_secs_f64(count as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may contain anything; utime and stime are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(|field| field.parse::<u64>().ok());
    Some(times.next()?? + times.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_no_harm() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 2 3 4 70 8 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(78));
    }

    #[test]
    fn work_costs_time() {
        let before = cpu_time(std::process::id()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while cpu_time(std::process::id()).unwrap() == before {
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn running_time_is_about_cpu_time() {
        let pid = std::process::id();
        let before = (running_time(pid).unwrap(), cpu_time(pid).unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while cpu_time(pid).unwrap() < before.1 + Duration::from_millis(200) {
            assert!(Instant::now() < deadline);
        }
        let ran = running_time(pid).unwrap() - before.0;
        assert!((Duration::from_millis(100)..Duration::from_secs(20)).contains(&ran), "{ran:?}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = Process::spawn(Command::new("sleep").arg("60")).unwrap();
        let path = format!("/proc/{}", process.id());
        assert!(fs::exists(&path).unwrap());
        drop(process);
        assert!(!fs::exists(&path).unwrap());
    }
}
