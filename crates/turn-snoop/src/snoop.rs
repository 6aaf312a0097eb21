use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use turn_wire::stun::{AddressFamily, AttributeType, Class, Header, Message, Method};

use crate::allocations::Allocations;
use crate::content::{Content, RESPONSE_ATTRIBUTES, has_mobility_ticket, refuse_unknown_attributes};
use crate::grant::{self, Grant};
use crate::joining::Directions;
use crate::peer_policy;
use crate::refusal::Refusals;
use crate::transactions::{Answered, Asked, TransactionKey, Transactions};
use crate::{
    Allocation, ChannelBinding, Command, FiveTuple, Limits, ListeningPorts, Refusal, Revocation, User,
};

mod adoption;
mod call;
mod remembering;
mod revocation;

/// A server counts in whole seconds and looks around only so often. Who outlives it by this much relays nothing that
/// it would not, since that is for the server's own packets to show.
const EXPIRY_GRACE: Duration = Duration::from_secs(2);

/// Bad request: the server does not have the channel as the client thinks (RFC 8656 section 12.2).
const BAD_REQUEST: u16 = 400;

/// The server has no allocation on this 5-tuple (RFC 8656 section 5).
const ALLOCATION_MISMATCH: u16 = 437;

/// Works out from passing control messages what the server agreed to.
#[derive(Debug)]
pub struct Snoop {
    limits: Limits,
    listening_ports: ListeningPorts,
    allocations: Allocations,
    transactions: Transactions,
    /// Those of clients whose Allocate was not seen, kept apart so that forged ones take no room from others.
    strangers: Transactions,
    /// What the server is seen doing with data of which no binding is known.
    directions: Directions,
    local_addresses: HashSet<IpAddr>,
    binding_count: usize,
    commands: VecDeque<Command>,
    refusals: Refusals,
}

impl Snoop {
    /// Knows nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            listening_ports: ListeningPorts::default(),
            allocations: Allocations::new(),
            transactions: Transactions::new(limits),
            strangers: Transactions::new(limits.of_strangers()),
            directions: Directions::new(limits),
            local_addresses: HashSet::new(),
            binding_count: 0,
            commands: VecDeque::new(),
            refusals: Refusals::new(),
        }
    }

    /// Where servers listen.
    #[must_use]
    pub fn listening_at(self, listening_ports: ListeningPorts) -> Self {
        Self { listening_ports, ..self }
    }

    /// A message has entered the host. Only requests mean anything here, and they are only claims. Says why
    /// nothing was learned.
    pub fn handle_request(
        &mut self,
        now: Duration,
        source: SocketAddr,
        destination: SocketAddr,
        message: &[u8],
    ) -> Option<Refusal> {
        self.handle_timeout(now);
        let five_tuple = FiveTuple { client: source, server: destination };
        let refusal = self.learn_from_request(now, five_tuple, message).err()?;
        self.refusals.count(refusal);
        Some(refusal)
    }

    /// A message that was sent by this host itself is leaving it. Only responses mean anything here.
    /// Says why nothing was learned.
    pub fn handle_response(
        &mut self,
        now: Duration,
        source: SocketAddr,
        destination: SocketAddr,
        message: &[u8],
    ) -> Option<Refusal> {
        self.handle_timeout(now);
        let five_tuple = FiveTuple { client: destination, server: source };
        let refusal = self.learn_from_response(now, five_tuple, message).err()?;
        self.refusals.count(refusal);
        Some(refusal)
    }

    /// Time has passed; what has expired is unbound.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.transactions.handle_timeout(now);
        self.strangers.handle_timeout(now);
        self.directions.handle_timeout(now);
        let Some(expired) = now.checked_sub(EXPIRY_GRACE) else { return };
        while let Some(five_tuple) = self.allocations.due(expired) {
            let family =
                self.allocations.of(five_tuple).and_then(|allocation| allocation.expired_family(expired));
            self.end(five_tuple, family, Revocation::Expired);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let allocation = self.allocations.first_deadline().map(|at| at.saturating_add(EXPIRY_GRACE));
        let transaction = self.transactions.first_deadline();
        let stranger = self.strangers.first_deadline();
        let direction = self.directions.first_deadline();
        allocation.into_iter().chain(transaction).chain(stranger).chain(direction).min()
    }

    /// The next thing to do for the caller.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The addresses of this host's interfaces, all of them each time.
    ///
    /// A peer at such an address is offloaded only if the address is the relayed transport address of another
    /// allocation.
    pub fn set_local_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.local_addresses = addresses.into_iter().collect();
        let mut refused: Vec<ChannelBinding> = self
            .allocations
            .iter()
            .flat_map(|allocation| allocation.bindings().map(move |binding| (allocation, binding)))
            .filter(|(allocation, binding)| self.refuse_peer(allocation, binding.peer).is_err())
            .map(|(_, &binding)| binding)
            .collect();
        refused.sort_unstable();
        for binding in refused {
            self.unbind(binding, Revocation::PeerNotAllowed);
        }
    }

    /// The allocations that are known, in no particular order.
    pub fn allocations(&self) -> impl Iterator<Item = &Allocation> {
        self.allocations.iter()
    }

    /// The allocation of a 5-tuple, if one is known.
    pub fn allocation(&self, five_tuple: FiveTuple) -> Option<&Allocation> {
        self.allocations.of(five_tuple)
    }

    /// How many allocations are known.
    pub fn allocation_count(&self) -> usize {
        self.allocations.len()
    }

    /// How many bindings are announced and not over.
    pub fn binding_count(&self) -> usize {
        self.binding_count
    }

    /// How often each refusal has happened, those that never did included.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> {
        self.refusals.iter()
    }

    fn learn_from_request(
        &mut self,
        now: Duration,
        five_tuple: FiveTuple,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let header = Header::parse(bytes)?;
        match header.class {
            Class::Request => {}
            Class::Indication => return Err(Refusal::Indication),
            Class::SuccessResponse | Class::ErrorResponse => return Err(Refusal::ResponseEntering),
        }
        let read = match header.method {
            Method::CHANNEL_BIND => Content::of_channel_bind,
            Method::REFRESH => Content::of_refresh,
            // Their responses say all that is needed of them.
            Method::ALLOCATE | Method::CREATE_PERMISSION => return Ok(()),
            _ => return Err(Refusal::UnusedMethod),
        };

        let Some(allocation) = self.allocations.of(five_tuple) else {
            return self.stranger_asked(now, five_tuple, &header, bytes);
        };
        if allocation.is_mobile() && header.method == Method::CHANNEL_BIND {
            return Err(Refusal::MobileAllocation);
        }
        let is_blind = now < allocation.learns_nothing_until;

        // A request that cannot be read is recorded all the same: the server may be able to, and then the response
        // is its.
        let message = Message::parse(bytes).map_err(Refusal::from);
        let content = message.as_ref().map_err(|refusal| *refusal).and_then(read);
        let key = TransactionKey { five_tuple, method: header.method, id: header.transaction_id };
        let asked = self.transactions.ask(now, key, content.ok(), is_blind);
        self.transactions.asked_by(key, message.ok().as_ref().and_then(User::of).map(Arc::new));
        match asked {
            Asked::Recorded => content.map(|_| ()),
            Asked::Refused(refusal) => Err(content.err().unwrap_or(refusal)),
            Asked::Contradicted => {
                self.doubt(key);
                Err(content.err().unwrap_or(Refusal::ContradictedTransaction))
            }
            Asked::Overflowed => {
                self.learn_nothing_for_now(now, five_tuple);
                Err(Refusal::TooManyTransactions)
            }
        }
    }

    fn learn_from_response(
        &mut self,
        now: Duration,
        five_tuple: FiveTuple,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let message = Message::parse(bytes)?;
        let key = TransactionKey { five_tuple, method: message.method(), id: message.transaction_id() };
        match (message.method(), message.class()) {
            (_, Class::Request) => Err(Refusal::RequestLeaving),
            (_, Class::Indication) => Err(Refusal::Indication),
            (Method::ALLOCATE, Class::SuccessResponse) => self.allocated(now, five_tuple, &message),
            // 437 to an Allocate says that the allocation is there (RFC 8656 section 7.2).
            (Method::ALLOCATE, Class::ErrorResponse) => Err(Refusal::ServerRefused),
            (Method::REFRESH, Class::SuccessResponse) => self.refreshed(now, key, &message),
            (Method::CREATE_PERMISSION, Class::SuccessResponse) => {
                self.allocations.seen_alive(five_tuple);
                Ok(())
            }
            (Method::CHANNEL_BIND, Class::SuccessResponse) => self.channel_bound(now, key, &message),
            (Method::REFRESH | Method::CREATE_PERMISSION | Method::CHANNEL_BIND, Class::ErrorResponse) => {
                self.refused(now, key, &message)
            }
            _ => Err(Refusal::UnusedMethod),
        }
    }

    /// An Allocate success (RFC 8656 section 7.2). It is self-contained: no request is needed to believe it.
    fn allocated(
        &mut self,
        now: Duration,
        five_tuple: FiveTuple,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let id = message.transaction_id();
        let grant = self.acceptable_grant(five_tuple, message);

        if let Some(allocation) = self.allocations.of(five_tuple) {
            if let Ok(grant) = &grant
                && allocation.is_made_by(id, grant)
            {
                let deadline = now.saturating_add(grant.lifetime);
                self.allocations.set_deadline(five_tuple, None, |before| before.min(deadline));
                if grant.is_mobile {
                    self.leave_to_server(five_tuple);
                }
                return Ok(());
            }
            // A server that has an allocation answers 437, so the one that was known is gone, whatever the new one
            // is like. A response that cannot be read and has the old id may be the old one, sent again.
            if grant.is_ok() || !allocation.has_transaction_id(id) {
                self.void(five_tuple, Revocation::ReplacedAllocation);
                if grant.is_err() {
                    self.commands.push_back(Command::Forget(five_tuple));
                }
            }
        }

        let grant = grant?;
        for &relayed in &grant.relayed {
            self.doubt_owners(relayed);
        }
        if self.allocations.len() >= self.limits.allocations {
            return Err(Refusal::TooManyAllocations);
        }
        self.allocations.insert(Allocation::new(now, five_tuple, id, &grant));
        Ok(())
    }

    fn acceptable_grant(&self, five_tuple: FiveTuple, message: &Message<'_>) -> Result<Grant, Refusal> {
        let server = five_tuple.server;
        self.refuse_ends(five_tuple)?;
        let grant = Grant::of_allocate_success(message)?;
        if grant
            .relayed
            .iter()
            .any(|&relayed| relayed.port() == server.port() || self.allocations.is_listener(relayed))
        {
            return Err(Refusal::RelayedAddressIsListener);
        }
        Ok(grant)
    }

    /// Whoever it is that the server is said to talk to, some clients are never offloaded, and some senders are no
    /// listeners.
    fn refuse_ends(&self, FiveTuple { client, server }: FiveTuple) -> Result<(), Refusal> {
        // A client can have the server send any bytes from its relayed transport address, to anyone.
        if self.allocations.is_relayed_port(server.port()) && !self.allocations.is_listener(server) {
            return Err(Refusal::SourceIsRelayedAddress);
        }
        if !self.listening_ports.may_be(server.port()) {
            return Err(Refusal::SourceIsNoListener);
        }
        if !peer_policy::is_allowed(client) || self.local_addresses.contains(&client.ip()) {
            return Err(Refusal::ClientNotAllowed);
        }
        Ok(())
    }

    /// A Refresh success (RFC 8656 section 8.2). It changes an allocation and never makes one.
    fn refreshed(
        &mut self,
        now: Duration,
        key: TransactionKey,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let five_tuple = key.five_tuple;
        let is_dual = self.allocations.of(five_tuple).ok_or(Refusal::NoAllocation)?.is_dual();
        let answered = self.answer(now, key);
        let lifetime = grant::lifetime(message)?;
        if lifetime.is_zero() {
            self.refreshed_to_zero(five_tuple, answered);
            return Ok(());
        }

        if has_mobility_ticket(message) {
            self.leave_to_server(five_tuple);
        }
        refuse_unknown_attributes(message, RESPONSE_ATTRIBUTES)?;
        self.allocations.seen_alive(five_tuple);
        let deadline = now.saturating_add(lifetime);
        // The family is named in the request alone, and the other family keeps its deadline.
        let family = match answered {
            Answered::Again(contents) => {
                let family = match contents {
                    [Some(Content::Refresh { family, .. }), None] => family,
                    _ => None,
                };
                self.allocations.set_deadline(five_tuple, family, |before| before.min(deadline));
                return Err(Refusal::CompletedTransaction);
            }
            _ if !is_dual => None,
            Answered::Claim(Content::Refresh { family, .. }) => family,
            _ => return Err(Refusal::AmbiguousRefresh),
        };
        self.allocations.set_deadline(five_tuple, family, |_| deadline);
        Ok(())
    }

    /// Where it is not known which of two families has ended, both have.
    fn refreshed_to_zero(&mut self, five_tuple: FiveTuple, answered: Answered) {
        let family = match answered {
            Answered::Claim(Content::Refresh { family, .. }) => family,
            Answered::Again([Some(Content::Refresh { family: Some(family), .. }), None]) => {
                // The response of a deletion that has been heeded, sent again.
                let allocation = self.allocations.of(five_tuple);
                if allocation.is_some_and(|allocation| allocation.relayed_of(family).is_none()) {
                    return;
                }
                Some(family)
            }
            _ => None,
        };
        self.end(five_tuple, family, Revocation::RefreshedToZero);
    }

    /// A ChannelBind success (RFC 8656 section 12.2). It does not say what was bound; the request does.
    fn channel_bound(
        &mut self,
        now: Duration,
        key: TransactionKey,
        message: &Message<'_>,
    ) -> Result<(), Refusal> {
        let Some(allocation) = self.allocations.of(key.five_tuple) else {
            return self.stranger_bound(now, key, message);
        };
        if allocation.is_mobile() {
            return Err(Refusal::MobileAllocation);
        }
        let (channel, peer) = match self.answer(now, key) {
            // Under this id something was asked before the allocation was known, and which of the two is answered cannot be told.
            Answered::Claim(_) if self.strangers.knows(key) => return Err(Refusal::PoisonedTransaction),
            Answered::Claim(Content::ChannelBind { channel, peer }) => (channel, peer),
            Answered::Poisoned(contents) => {
                self.unbind_against(key.five_tuple, contents);
                return Err(Refusal::PoisonedTransaction);
            }
            Answered::Late(contents) => {
                self.unbind_against(key.five_tuple, contents);
                return Err(Refusal::LateResponse);
            }
            Answered::Again(_) => return Err(Refusal::CompletedTransaction),
            Answered::Claim(Content::Refresh { .. }) | Answered::Unknown => {
                return Err(Refusal::UnknownTransaction);
            }
            Answered::Overflowed => return Err(Refusal::TooManyTransactions),
        };

        self.allocations.seen_alive(key.five_tuple);
        // Whether or not the new binding can be announced, the server no longer has those that it excludes.
        self.unbind_excluded(key.five_tuple, channel, peer, Revocation::Rebound);
        refuse_unknown_attributes(message, RESPONSE_ATTRIBUTES)?;
        self.bind(key, channel, peer)
    }

    fn bind(&mut self, key: TransactionKey, channel: u16, peer: SocketAddr) -> Result<(), Refusal> {
        let five_tuple = key.five_tuple;
        let allocation = self.allocations.of(five_tuple).ok_or(Refusal::NoAllocation)?;
        let relayed =
            allocation.relayed_of(AddressFamily::of(&peer)).ok_or(Refusal::NoRelayedAddressOfFamily)?;
        let is_new = allocation.binding_of(channel).is_none();
        if let Err(refusal) = self.refuse_peer(allocation, peer) {
            if let Some(binding) = allocation.binding_of(channel) {
                self.unbind(binding, Revocation::PeerNotAllowed);
            }
            return Err(refusal);
        }
        if is_new && allocation.binding_count() >= self.limits.channels_per_allocation {
            return Err(Refusal::TooManyChannels);
        }

        let mut is_doubtful = false;
        if let Some(relayed) = relayed {
            self.unbind_of_other_owners(five_tuple, relayed, peer);
            is_doubtful = self.allocations.owners(relayed).len() > 1;
        }
        let binding = ChannelBinding { five_tuple, channel, peer, relayed };
        let user = self.transactions.user(key);
        if let Some(allocation) = self.allocations.of_mut(five_tuple) {
            allocation.bind(binding, Some(key.id));
            allocation.user = user.or(allocation.user.take());
        }
        self.binding_count += usize::from(is_new);
        self.commands.push_back(if is_doubtful {
            Command::BindDoubtful(binding)
        } else {
            Command::Bind(binding)
        });
        Ok(())
    }

    fn refuse_peer(&self, allocation: &Allocation, peer: SocketAddr) -> Result<(), Refusal> {
        if allocation.has_relayed(peer) && peer_policy::is_allowed(peer) {
            return Err(Refusal::PeerIsThisHost);
        }
        self.refuse_any_peer(peer)
    }

    /// Whoever the client is.
    fn refuse_any_peer(&self, peer: SocketAddr) -> Result<(), Refusal> {
        if !peer_policy::is_allowed(peer) {
            return Err(Refusal::PeerNotAllowed);
        }
        if self.allocations.is_listener(peer) {
            return Err(Refusal::PeerIsThisHost);
        }
        if self.local_addresses.contains(&peer.ip()) && self.allocations.owners(peer).is_empty() {
            return Err(Refusal::PeerIsThisHost);
        }
        Ok(())
    }

    /// An error response to anything but an Allocate: the claim is dead, and some codes say more.
    fn refused(&mut self, now: Duration, key: TransactionKey, message: &Message<'_>) -> Result<(), Refusal> {
        let five_tuple = key.five_tuple;
        self.allocations.of(five_tuple).ok_or(Refusal::NoAllocation)?;
        // CreatePermission requests are not recorded, since nothing is learned from them.
        let answered = match key.method {
            Method::CREATE_PERMISSION => Answered::Unknown,
            _ => self.answer(now, key),
        };
        let asked = match answered {
            Answered::Claim(content) => Some(content),
            Answered::Late([content, _]) | Answered::Again([content, _]) => content,
            Answered::Poisoned(_) | Answered::Unknown | Answered::Overflowed => None,
        };

        match message.exactly_one(AttributeType::ERROR_CODE)?.error_code()? {
            ALLOCATION_MISMATCH if key.method == Method::REFRESH => match asked {
                Some(Content::Refresh { has_ticket: false, .. }) => {
                    self.end(five_tuple, None, Revocation::AllocationMismatch);
                }
                Some(Content::Refresh { has_ticket: true, .. }) => return Err(Refusal::TicketMismatch),
                _ => return Err(Refusal::UnknownTransaction),
            },
            ALLOCATION_MISMATCH => self.end(five_tuple, None, Revocation::AllocationMismatch),
            BAD_REQUEST => {
                if let Some(Content::ChannelBind { channel, peer }) = asked
                    && let Some(binding) = self
                        .allocations
                        .of(five_tuple)
                        .and_then(|allocation| allocation.binding_of(channel))
                        .filter(|binding| binding.peer == peer)
                {
                    self.unbind(binding, Revocation::Contradicted);
                }
            }
            _ => {}
        }
        Err(Refusal::ServerRefused)
    }

    fn answer(&mut self, now: Duration, key: TransactionKey) -> Answered {
        let answered = self.transactions.answer(now, key);
        if let Answered::Overflowed = answered {
            self.learn_nothing_for_now(now, key.five_tuple);
        }
        answered
    }
}
