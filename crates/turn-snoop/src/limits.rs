/// How much is remembered at most. What is over a limit is refused and counted; nothing older makes room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Allocations.
    pub allocations: usize,
    /// Channel bindings of one allocation, so that one client cannot use up what is there for all.
    pub channels_per_allocation: usize,
    /// Unanswered requests of one 5-tuple. A client should keep to 10 (RFC 8489 section 6.2).
    pub pending_per_allocation: usize,
    /// Transactions of one 5-tuple, answered ones included, within the minute for which they are remembered.
    pub transactions_per_allocation: usize,
    /// Transactions of all 5-tuples together.
    pub transactions: usize,
    /// Directions of calls that may be older than the snoop.
    pub directions: usize,
    /// How many different datagrams in a row, with nothing between them that does not fit, have to show one of these. Who knows half of
    /// what another client is going to send must not hit so many by chance.
    pub proofs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 65_536,
            channels_per_allocation: 256,
            pending_per_allocation: 16,
            transactions_per_allocation: 512,
            transactions: 262_144,
            directions: 65_536,
            proofs: 16,
        }
    }
}

impl Limits {
    /// What is remembered of clients whose allocation is not known. Anyone can claim to be one.
    pub(crate) fn of_strangers(self) -> Self {
        Self { pending_per_allocation: 4, transactions_per_allocation: 8, transactions: 4096, ..self }
    }
}
