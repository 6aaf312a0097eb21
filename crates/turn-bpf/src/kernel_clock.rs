//! The clock that the kernel side reads.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// `bpf_ktime_get_coarse_ns`: CLOCK_MONOTONIC_COARSE, which stands still while the machine is suspended.
///
/// Programs of the kernel are in no time namespace, while this process may be, where a container was moved or restored:
/// then its own monotonic clock is ahead or behind by an offset (time_namespaces(7)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelClock {
    /// In nanoseconds.
    ahead: i128,
}

impl KernelClock {
    /// Asks for the offset of this process, which never changes.
    pub fn new() -> Self {
        // Without time namespaces there is no such file, and no offset.
        let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        Self { ahead: monotonic_offset(&offsets).unwrap_or(0) }
    }

    /// What it shows.
    pub fn now(&self) -> Duration {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        let own = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        Duration::from_nanos(u64::try_from(own - self.ahead).unwrap_or(0))
    }
}

/// From lines of a clock's name, seconds and nanoseconds, in nanoseconds.
fn monotonic_offset(offsets: &str) -> Option<i128> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<i128>().ok());
    Some(numbers.next()?? * 1_000_000_000 + numbers.next()??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_time_namespace_is_read() {
        let text = |offset: &str| format!("monotonic  {offset}\nboottime           7         0\n");
        assert_eq!(monotonic_offset(&text("86400         5")), Some(86_400_000_000_005));
        assert_eq!(monotonic_offset(&text("  -10 500000000")), Some(-9_500_000_000));
        assert_eq!(monotonic_offset("boottime 1 2\n"), None);
        assert_eq!(monotonic_offset(""), None);
    }
}
