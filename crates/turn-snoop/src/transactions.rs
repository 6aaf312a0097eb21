use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use turn_wire::stun::{Method, TransactionId};

use crate::content::Content;
use crate::deadlines::Deadlines;
use crate::{FiveTuple, Limits, Refusal, User};

/// A transaction is remembered for so long after the latest message of it. A client gives up after 39.5 seconds and
/// a server may repeat a stored response for 40 (RFC 8489 section 6.3.1).
pub(crate) const MEMORY: Duration = Duration::from_secs(60);

/// A server answers at once or not at all; a request that comes again may be answered again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What joins a response to a request (RFC 8489 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TransactionKey {
    pub(crate) five_tuple: FiveTuple,
    pub(crate) method: Method,
    pub(crate) id: TransactionId,
}

/// The requests of the last minute, and what has become of them.
///
/// The server does not repeat in its response what it granted, so whoever sees a transaction id could put a request
/// of his own under it and have the genuine one's response taken for his. Therefore an id stands for one content
/// only. A second content, or one that cannot be read, spoils the id for good, no matter which of the two came first
/// and what was answered in between; neither the first nor the last is the right one to believe. An id that has been
/// answered is spent: a response that a server repeats from its store confirms nothing new.
#[derive(Debug)]
pub(crate) struct Transactions {
    limits: Limits,
    by_key: HashMap<TransactionKey, Transaction>,
    loads: HashMap<FiveTuple, Load>,
    deadlines: Deadlines<TransactionKey>,
}

#[derive(Debug)]
struct Transaction {
    contents: Contents,
    phase: Phase,
    asked_by: AskedBy,
    forgotten_at: Duration,
}

/// Who is said to have asked, which may be nobody.
#[derive(Debug)]
enum AskedBy {
    NotHeard,
    One(Option<Arc<User>>),
    /// Which of them it was is not for us to say.
    Several,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asked { pending_until: Duration },
    Answered,
    Poisoned,
}

/// What has been seen asked under one transaction id: one content in good order, two when there is a contradiction.
pub(crate) type Contents = [Option<Content>; 2];

/// How much of the limits a 5-tuple uses.
#[derive(Debug, Default)]
struct Load {
    total: usize,
    pending: Vec<(Method, TransactionId)>,
}

/// What a request did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is a claim, for the first time or again.
    Recorded,
    /// It contradicts an earlier request; whatever was learned from that one is doubtful.
    Contradicted,
    /// It changes nothing.
    Refused(Refusal),
    /// It could not be recorded at all, so the next one to use its id would seem to be the first.
    Overflowed,
}

/// What a response answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    /// One clean claim.
    Claim(Content),
    /// A claim too old to be joined.
    Late(Contents),
    /// A transaction that had an answer before.
    Again(Contents),
    /// One of several contents.
    Poisoned(Contents),
    /// A request that was not seen.
    Unknown,
    /// As `Unknown`, and this could not be recorded.
    Overflowed,
}

impl Transactions {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, by_key: HashMap::new(), loads: HashMap::new(), deadlines: Deadlines::new() }
    }

    /// Whether anything was asked or answered under this id.
    pub(crate) fn knows(&self, key: TransactionKey) -> bool {
        self.by_key.contains_key(&key)
    }

    /// Notes a request. `None` is the content of one that cannot be read in one way only.
    ///
    /// `is_blind` says that earlier requests may be missing here, so that one that seems to be the first of its id
    /// is not believed to be.
    pub(crate) fn ask(
        &mut self,
        now: Duration,
        key: TransactionKey,
        content: Option<Content>,
        is_blind: bool,
    ) -> Asked {
        let may_pend = self.may_pend(now, key);
        let pending_until = if may_pend { now.saturating_add(PATIENCE) } else { now };

        let Some(transaction) = self.by_key.get_mut(&key) else {
            let is_clean = content.is_some() && !is_blind;
            let phase = if is_clean { Phase::Asked { pending_until } } else { Phase::Poisoned };
            return match self.record(now, key, [content, None], phase) {
                false => Asked::Overflowed,
                true if is_blind => Asked::Refused(Refusal::TooManyTransactions),
                true if is_clean => self.pend(key, may_pend),
                true => Asked::Recorded,
            };
        };

        let is_same = content.is_some() && transaction.contents == [content, None];
        let phase = transaction.phase;
        match phase {
            Phase::Poisoned => {}
            _ if !is_same => {
                transaction.phase = Phase::Poisoned;
                let [first, second] = &mut transaction.contents;
                *if first.is_none() { first } else { second } = content;
            }
            Phase::Asked { .. } if may_pend => transaction.phase = Phase::Asked { pending_until },
            Phase::Asked { .. } | Phase::Answered => {}
        }
        self.remember(now, key);

        match phase {
            Phase::Poisoned => Asked::Refused(Refusal::PoisonedTransaction),
            _ if !is_same => Asked::Contradicted,
            Phase::Asked { .. } => self.pend(key, may_pend),
            Phase::Answered => Asked::Recorded,
        }
    }

    /// Notes a response, of whatever class: the transaction is spent.
    pub(crate) fn answer(&mut self, now: Duration, key: TransactionKey) -> Answered {
        let Some(transaction) = self.by_key.get_mut(&key) else {
            return match self.record(now, key, [None, None], Phase::Answered) {
                true => Answered::Unknown,
                false => Answered::Overflowed,
            };
        };
        let answered = match (transaction.phase, transaction.contents) {
            (Phase::Asked { pending_until }, [Some(content), None]) if now < pending_until => {
                Answered::Claim(content)
            }
            (Phase::Asked { .. }, contents) => Answered::Late(contents),
            (Phase::Answered, contents) => Answered::Again(contents),
            (Phase::Poisoned, contents) => Answered::Poisoned(contents),
        };
        if let Phase::Asked { .. } = transaction.phase {
            transaction.phase = Phase::Answered;
        }
        self.remember(now, key);
        answered
    }

    /// Notes who is said to have sent a request that was just noted.
    pub(crate) fn asked_by(&mut self, key: TransactionKey, user: Option<Arc<User>>) {
        let Some(transaction) = self.by_key.get_mut(&key) else { return };
        transaction.asked_by = match &transaction.asked_by {
            AskedBy::NotHeard => AskedBy::One(user),
            AskedBy::One(before) if *before == user => return,
            AskedBy::One(_) | AskedBy::Several => AskedBy::Several,
        };
    }

    /// Who sent the request, where that is known.
    pub(crate) fn user(&self, key: TransactionKey) -> Option<Arc<User>> {
        match &self.by_key.get(&key)?.asked_by {
            AskedBy::One(user) => user.clone(),
            AskedBy::NotHeard | AskedBy::Several => None,
        }
    }

    /// Whether an answer that comes now would be believed.
    pub(crate) fn are_pending(&self, now: Duration) -> bool {
        let mut phases = self.by_key.values().map(|transaction| transaction.phase);
        phases.any(|phase| matches!(phase, Phase::Asked { pending_until } if now < pending_until))
    }

    pub(crate) fn first_deadline(&self) -> Option<Duration> {
        self.deadlines.first()
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        while let Some(key) = self.deadlines.due(now) {
            let Some(transaction) = self.by_key.remove(&key) else { return };
            self.deadlines.remove(transaction.forgotten_at, key);
            if let Some(load) = self.loads.get_mut(&key.five_tuple) {
                load.total = load.total.saturating_sub(1);
                if load.total == 0 {
                    self.loads.remove(&key.five_tuple);
                }
            }
        }
    }

    fn record(&mut self, now: Duration, key: TransactionKey, contents: Contents, phase: Phase) -> bool {
        let total = self.loads.get(&key.five_tuple).map_or(0, |load| load.total);
        if total >= self.limits.transactions_per_allocation || self.by_key.len() >= self.limits.transactions {
            return false;
        }
        let forgotten_at = now.saturating_add(MEMORY);
        self.loads.entry(key.five_tuple).or_default().total += 1;
        self.by_key.insert(key, Transaction { contents, phase, asked_by: AskedBy::NotHeard, forgotten_at });
        self.deadlines.insert(forgotten_at, key);
        true
    }

    fn remember(&mut self, now: Duration, key: TransactionKey) {
        let Some(transaction) = self.by_key.get_mut(&key) else { return };
        self.deadlines.remove(transaction.forgotten_at, key);
        transaction.forgotten_at = now.saturating_add(MEMORY);
        self.deadlines.insert(transaction.forgotten_at, key);
    }

    /// Whether the transaction is pending, or there is room for it to be.
    fn may_pend(&mut self, now: Duration, key: TransactionKey) -> bool {
        let Some(load) = self.loads.get_mut(&key.five_tuple) else {
            return self.limits.pending_per_allocation > 0;
        };
        load.pending.retain(|&(method, id)| {
            let transaction = self.by_key.get(&TransactionKey { method, id, ..key });
            matches!(
                transaction.map(|transaction| transaction.phase),
                Some(Phase::Asked { pending_until }) if now < pending_until
            )
        });
        load.pending.len() < self.limits.pending_per_allocation
            || load.pending.contains(&(key.method, key.id))
    }

    fn pend(&mut self, key: TransactionKey, may_pend: bool) -> Asked {
        if !may_pend {
            return Asked::Refused(Refusal::TooManyPending);
        }
        if let Some(load) = self.loads.get_mut(&key.five_tuple)
            && !load.pending.contains(&(key.method, key.id))
        {
            load.pending.push((key.method, key.id));
        }
        Asked::Recorded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a17_memory_is_bounded_and_given_back() {
        let limits = Limits {
            pending_per_allocation: 2,
            transactions_per_allocation: 4,
            transactions: 10,
            ..Limits::default()
        };
        let mut transactions = Transactions::new(limits);
        let server = ([192, 0, 2, 1], 3478).into();
        for client in 1..=4 {
            let five_tuple = FiveTuple { client: ([198, 51, 100, 1], client).into(), server };
            for id in 0..100 {
                let key = TransactionKey { five_tuple, method: Method::REFRESH, id: TransactionId([id; 12]) };
                let content = Content::Refresh { lifetime: None, family: None, has_ticket: false };
                let asked = transactions.ask(Duration::ZERO, key, Some(content), false);
                let expected = match (client, id) {
                    (1..=2, 0..2) | (3, 0..2) => Asked::Recorded,
                    (1..=2, 2..4) => Asked::Refused(Refusal::TooManyPending),
                    _ => Asked::Overflowed,
                };
                assert_eq!(asked, expected, "{client} {id}");
            }
        }
        assert_eq!(transactions.by_key.len(), 10);

        transactions.handle_timeout(MEMORY);
        assert!(transactions.by_key.is_empty() && transactions.loads.is_empty());
        assert_eq!(transactions.first_deadline(), None);
    }
}
