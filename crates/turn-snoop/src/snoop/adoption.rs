//! Clients whose Allocate was not seen, since they were there before anyone looked.

use std::sync::Arc;
use std::time::Duration;

use turn_wire::stun::{Header, Message, Method};

use super::Snoop;
use crate::content::{Content, RESPONSE_ATTRIBUTES, refuse_unknown_attributes};
use crate::transactions::{Answered, Asked, TransactionKey};
use crate::{Allocation, FiveTuple, Refusal, User};

/// An allocation whose time-to-expiry is not known is believed in for as long as servers should grant at the most
/// (RFC 8656 section 7.2).
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

impl Snoop {
    /// A request on a 5-tuple without a known allocation. A ChannelBind may turn out to be one of an older
    /// allocation.
    pub(super) fn stranger_asked(
        &mut self,
        now: Duration,
        five_tuple: FiveTuple,
        header: &Header,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        if header.method != Method::CHANNEL_BIND {
            return Err(Refusal::NoAllocation);
        }
        let message = Message::parse(bytes).map_err(Refusal::from);
        let content = message.as_ref().map_err(|refusal| *refusal).and_then(Content::of_channel_bind);
        let key = TransactionKey { five_tuple, method: header.method, id: header.transaction_id };
        let asked = self.strangers.ask(now, key, content.ok(), false);
        self.strangers.asked_by(key, message.ok().as_ref().and_then(User::of).map(Arc::new));
        match asked {
            Asked::Recorded => content.map(|_| ()),
            Asked::Refused(refusal) => Err(content.err().unwrap_or(refusal)),
            Asked::Contradicted => Err(content.err().unwrap_or(Refusal::ContradictedTransaction)),
            Asked::Overflowed => Err(Refusal::NoAllocation),
        }
    }

    /// A ChannelBind success on a 5-tuple without a known allocation: the server has one, and it is older than what
    /// is known here. Its relayed transport address will show on the server's own packets.
    pub(super) fn stranger_bound(
        &mut self,
        now: Duration,
        key: TransactionKey,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        self.refuse_ends(key.five_tuple)?;
        let (channel, peer) = match self.strangers.answer(now, key) {
            // The same id was used of an allocation that is over since.
            Answered::Claim(_) if self.transactions.knows(key) => return Err(Refusal::PoisonedTransaction),
            Answered::Claim(Content::ChannelBind { channel, peer }) => (channel, peer),
            Answered::Poisoned(_) => return Err(Refusal::PoisonedTransaction),
            Answered::Late(_) => return Err(Refusal::LateResponse),
            Answered::Again(_) => return Err(Refusal::CompletedTransaction),
            Answered::Claim(Content::Refresh { .. }) | Answered::Unknown | Answered::Overflowed => {
                return Err(Refusal::NoAllocation);
            }
        };
        refuse_unknown_attributes(message, RESPONSE_ATTRIBUTES)?;
        if self.allocations.len() >= self.limits.allocations {
            return Err(Refusal::TooManyAllocations);
        }
        self.allocations.insert(Allocation::adopted(now, key.five_tuple, LIFETIME));
        // From here on its transactions are those of an allocation, and this one is spent.
        self.transactions.ask(now, key, Some(Content::ChannelBind { channel, peer }), false);
        self.transactions.asked_by(key, self.strangers.user(key));
        self.answer(now, key);
        self.bind(key, channel, peer)
    }
}
