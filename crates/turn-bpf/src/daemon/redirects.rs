//! Whether frames are redirected to an interface whose driver may throw them away.

use std::time::{Duration, Instant};

/// How long nothing is redirected after the first failure; each further one doubles it.
const WAIT: Duration = Duration::from_secs(1);
/// Doublings at the most, which makes about a minute.
const MOST_DOUBLINGS: u32 = 6;
/// So many failures in a row are no passing trouble, such as a driver that resets its rings or a carrier that comes back.
const HOPELESS: u32 = 4;
/// After so long without a failure the next one is the first.
const FORGIVEN: Duration = Duration::from_secs(10);

/// Frames are redirected, or will be after some time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Redirects {
    failures: u32,
    withheld_until: Option<Instant>,
    opened: Option<Instant>,
}

impl Redirects {
    /// Whether frames are redirected.
    pub(super) fn are_open(&self) -> bool {
        self.withheld_until.is_none()
    }

    /// Frames were thrown away.
    pub(super) fn fail(&mut self, now: Instant) {
        if self.opened.is_some_and(|opened| now >= opened + FORGIVEN) {
            self.failures = 0;
        }
        self.failures += 1;
        let doublings = (self.failures - 1).min(MOST_DOUBLINGS);
        self.withheld_until = Some(now + WAIT * (1 << doublings));
    }

    /// Whether this has gone on for too long.
    pub(super) fn are_hopeless(&self) -> bool {
        self.failures >= HOPELESS
    }

    /// Whether it is time to try again.
    pub(super) fn are_due(&self, now: Instant) -> bool {
        self.withheld_until.is_some_and(|until| now >= until)
    }

    /// Frames are redirected again.
    pub(super) fn open(&mut self, now: Instant) {
        self.withheld_until = None;
        self.opened = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_waited_out_for_longer_and_longer() {
        let mut redirects = Redirects::default();
        let mut now = Instant::now();
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
            assert!(redirects.are_open());
            assert_eq!(redirects.are_hopeless(), seconds >= 16);
            redirects.fail(now);
            let due = now + Duration::from_secs(seconds);
            assert!(!redirects.are_open() && !redirects.are_due(due - Duration::from_millis(1)));
            assert!(redirects.are_due(due));
            redirects.open(due);
            now = due + FORGIVEN - Duration::from_millis(1);
        }
        redirects.fail(now + Duration::from_millis(1));
        assert!(redirects.are_due(now + Duration::from_millis(1) + WAIT), "what is long over does not count");
        assert!(!redirects.are_hopeless());
    }
}
