use std::collections::BTreeSet;
use std::time::Duration;

/// Keys in the order in which their time comes. Each key is in it once, under the time that its owner remembers.
#[derive(Debug)]
pub(crate) struct Deadlines<K>(BTreeSet<(Duration, K)>);

impl<K: Copy + Ord> Deadlines<K> {
    pub(crate) fn new() -> Self {
        Self(BTreeSet::new())
    }

    pub(crate) fn insert(&mut self, at: Duration, key: K) {
        self.0.insert((at, key));
    }

    pub(crate) fn remove(&mut self, at: Duration, key: K) {
        self.0.remove(&(at, key));
    }

    pub(crate) fn first(&self) -> Option<Duration> {
        self.0.first().map(|&(at, _)| at)
    }

    /// A key whose time has come; it stays in until it is removed.
    pub(crate) fn due(&self, now: Duration) -> Option<K> {
        self.0.first().filter(|&&(at, _)| at <= now).map(|&(_, key)| key)
    }
}
