//! What one snoop leaves to the next.

use std::collections::HashSet;
use std::time::Duration;

use super::Snoop;
use crate::memory::AllocationMemory;
use crate::{Allocation, FiveTuple};

impl Snoop {
    /// The allocations that were made, have changed or are over since the last call; what they are now,
    /// [`allocation`](Self::allocation) and [`Allocation::memory`] say.
    pub fn take_changed(&mut self) -> HashSet<FiveTuple> {
        self.allocations.take_changed()
    }

    /// Goes on with what an earlier snoop knew, by the same clock. Its bindings are not announced; what has expired since is,
    /// with the next [`handle_timeout`](Self::handle_timeout). Of several that share a relayed transport address the one that was made
    /// first is to come first. False where there is no room, or the 5-tuple is known.
    pub fn remember(&mut self, memory: AllocationMemory) -> bool {
        let is_known = self.allocations.of(memory.five_tuple).is_some();
        if is_known || self.allocations.len() >= self.limits.allocations {
            return false;
        }
        self.binding_count += memory.bindings.len();
        self.allocations.insert(Allocation::remembered(memory));
        true
    }

    /// Whether the server may be about to answer a request that was seen.
    pub fn awaits_answers(&self, now: Duration) -> bool {
        self.transactions.are_pending(now) || self.strangers.are_pending(now)
    }
}
