use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use turn_wire::stun::{AddressFamily, TransactionId};

use crate::grant::Grant;
use crate::memory::{AllocationMemory, BindingMemory, RelayedMemory};
use crate::{ChannelBinding, FiveTuple, User};

/// An allocation that the server has announced and not taken back (RFC 8656 section 6).
#[derive(Debug)]
pub struct Allocation {
    five_tuple: FiveTuple,
    /// When it was learned.
    made: Duration,
    /// By family; at least one.
    relayed: BTreeMap<AddressFamily, Relayed>,
    is_mobile: bool,
    /// Of the Allocate that made it; none where that was not seen.
    transaction_id: Option<TransactionId>,
    bindings: BTreeMap<u16, Bound>,
    channels: BTreeMap<SocketAddr, u16>,
    /// Requests may have gone unrecorded, so none of a transaction that began before is to be believed.
    pub(crate) learns_nothing_until: Duration,
    /// Of the latest request that the server granted and that said it.
    pub(crate) user: Option<Arc<User>>,
}

#[derive(Clone, Copy, Debug)]
struct Relayed {
    /// None where the Allocate was not seen.
    address: Option<SocketAddr>,
    deadline: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bound {
    binding: ChannelBinding,
    /// Of the latest ChannelBind that the server granted; none where none was seen.
    transaction_id: Option<TransactionId>,
}

impl Bound {
    fn memory(&self) -> BindingMemory {
        let ChannelBinding { channel, peer, relayed, .. } = self.binding;
        BindingMemory {
            channel,
            peer,
            relayed,
            transaction_id: self.transaction_id.map(|TransactionId(id)| id),
        }
    }
}

impl Allocation {
    pub(crate) fn new(
        now: Duration,
        five_tuple: FiveTuple,
        transaction_id: TransactionId,
        grant: &Grant,
    ) -> Self {
        let deadline = now.saturating_add(grant.lifetime);
        let relayed = grant
            .relayed
            .iter()
            .map(|&address| (AddressFamily::of(&address), Relayed { address: Some(address), deadline }))
            .collect();
        Self {
            five_tuple,
            made: now,
            relayed,
            is_mobile: grant.is_mobile,
            transaction_id: Some(transaction_id),
            bindings: BTreeMap::new(),
            channels: BTreeMap::new(),
            learns_nothing_until: Duration::ZERO,
            user: None,
        }
    }

    /// One that was made before anyone looked. Its relayed transport addresses are not known.
    pub(crate) fn adopted(now: Duration, five_tuple: FiveTuple, lifetime: Duration) -> Self {
        let unknown = Relayed { address: None, deadline: now.saturating_add(lifetime) };
        Self {
            five_tuple,
            made: now,
            relayed: [(AddressFamily::Ipv4, unknown), (AddressFamily::Ipv6, unknown)].into(),
            is_mobile: false,
            transaction_id: None,
            bindings: BTreeMap::new(),
            channels: BTreeMap::new(),
            learns_nothing_until: Duration::ZERO,
            user: None,
        }
    }

    /// What there is to be told to another snoop.
    pub fn memory(&self) -> AllocationMemory {
        let relayed = |family| {
            let relayed = self.relayed.get(&family)?;
            Some(RelayedMemory { address: relayed.address, deadline: relayed.deadline })
        };
        AllocationMemory {
            five_tuple: self.five_tuple,
            made: self.made,
            relayed: [AddressFamily::Ipv4, AddressFamily::Ipv6].map(relayed),
            is_mobile: self.is_mobile,
            transaction_id: self.transaction_id.map(|TransactionId(id)| id),
            learns_nothing_until: self.learns_nothing_until,
            user: self.user.clone(),
            bindings: self.bindings.values().map(Bound::memory).collect(),
        }
    }

    /// The same of one binding.
    pub fn binding_memory(&self, channel: u16) -> Option<BindingMemory> {
        self.bindings.get(&channel).map(Bound::memory)
    }

    pub(crate) fn remembered(memory: AllocationMemory) -> Self {
        let families = [AddressFamily::Ipv4, AddressFamily::Ipv6].into_iter();
        let relayed = families.zip(memory.relayed).filter_map(|(family, relayed)| {
            let RelayedMemory { address, deadline } = relayed?;
            Some((family, Relayed { address, deadline }))
        });
        let mut allocation = Self {
            five_tuple: memory.five_tuple,
            made: memory.made,
            relayed: relayed.collect(),
            is_mobile: memory.is_mobile,
            transaction_id: memory.transaction_id.map(TransactionId),
            bindings: BTreeMap::new(),
            channels: BTreeMap::new(),
            learns_nothing_until: memory.learns_nothing_until,
            user: memory.user,
        };
        for BindingMemory { channel, peer, relayed, transaction_id } in memory.bindings {
            let binding = ChannelBinding { five_tuple: memory.five_tuple, channel, peer, relayed };
            allocation.bind(binding, transaction_id.map(TransactionId));
        }
        allocation
    }

    /// The allocation's name (RFC 8656 section 5).
    pub fn five_tuple(&self) -> FiveTuple {
        self.five_tuple
    }

    /// The relayed transport addresses as the server advertised them: one, or one of each family; none where the
    /// allocation is older than this snoop.
    pub fn relayed(&self) -> impl Iterator<Item = SocketAddr> {
        self.relayed.values().filter_map(|relayed| relayed.address)
    }

    /// Whether the server has issued a MOBILITY-TICKET for it (RFC 8016): then no binding of it is announced.
    pub fn is_mobile(&self) -> bool {
        self.is_mobile
    }

    /// Whose it is, as a request said in clear that the server granted.
    pub fn user(&self) -> Option<&Arc<User>> {
        self.user.as_ref()
    }

    /// The channel bindings, by channel number.
    pub fn bindings(&self) -> impl Iterator<Item = &ChannelBinding> {
        self.bindings.values().map(|bound| &bound.binding)
    }

    /// Whether the success that made this allocation was this one, sent again.
    pub(crate) fn is_made_by(&self, transaction_id: TransactionId, grant: &Grant) -> bool {
        self.has_transaction_id(transaction_id)
            && grant.relayed.iter().all(|&address| self.relayed().any(|own| own == address))
    }

    pub(crate) fn has_transaction_id(&self, transaction_id: TransactionId) -> bool {
        self.transaction_id == Some(transaction_id)
    }

    /// None where the allocation has no relayed transport address of this family, none inside where it is not known.
    pub(crate) fn relayed_of(&self, family: AddressFamily) -> Option<Option<SocketAddr>> {
        self.relayed.get(&family).map(|relayed| relayed.address)
    }

    /// Whether it was made before anyone looked.
    pub(crate) fn is_adopted(&self) -> bool {
        self.transaction_id.is_none()
    }

    /// Its relayed transport address of this family has shown.
    pub(crate) fn set_relayed(&mut self, address: SocketAddr) {
        if let Some(relayed) = self.relayed.get_mut(&AddressFamily::of(&address)) {
            relayed.address = Some(address);
        }
    }

    pub(crate) fn has_relayed(&self, address: SocketAddr) -> bool {
        self.relayed().any(|own| own == address)
    }

    pub(crate) fn is_dual(&self) -> bool {
        self.relayed.len() > 1
    }

    pub(crate) fn become_mobile(&mut self) {
        self.is_mobile = true;
    }

    /// The time at which the first of its relayed transport addresses expires.
    pub(crate) fn deadline(&self) -> Duration {
        self.relayed.values().map(|relayed| relayed.deadline).min().unwrap_or_default()
    }

    pub(crate) fn expired_family(&self, now: Duration) -> Option<AddressFamily> {
        self.relayed.iter().find(|(_, relayed)| relayed.deadline <= now).map(|(&family, _)| family)
    }

    /// Moves the deadline of one family, or of all that there are.
    pub(crate) fn set_deadline(
        &mut self,
        family: Option<AddressFamily>,
        deadline: impl Fn(Duration) -> Duration,
    ) {
        for (own, relayed) in &mut self.relayed {
            if family.is_none_or(|family| family == *own) {
                relayed.deadline = deadline(relayed.deadline);
            }
        }
    }

    pub(crate) fn remove_relayed(&mut self, family: AddressFamily) -> Option<SocketAddr> {
        self.relayed.remove(&family).and_then(|relayed| relayed.address)
    }

    pub(crate) fn binding_count(&self) -> usize {
        self.bindings.len()
    }

    pub(crate) fn binding_of(&self, channel: u16) -> Option<ChannelBinding> {
        self.bindings.get(&channel).map(|bound| bound.binding)
    }

    /// The bindings that cannot be if the server has bound `channel` to `peer`: at most two.
    pub(crate) fn bindings_against(
        &self,
        channel: u16,
        peer: SocketAddr,
    ) -> impl Iterator<Item = ChannelBinding> + use<> {
        let of_channel = self.binding_of(channel).filter(|binding| binding.peer != peer);
        let of_peer = self
            .channels
            .get(&peer)
            .filter(|&&other| other != channel)
            .and_then(|&other| self.binding_of(other));
        of_channel.into_iter().chain(of_peer)
    }

    pub(crate) fn bindings_made_by(&self, transaction_id: TransactionId) -> Option<ChannelBinding> {
        self.bindings
            .values()
            .find(|bound| bound.transaction_id == Some(transaction_id))
            .map(|bound| bound.binding)
    }

    /// Puts the binding in the place of one that is equal, or in an empty place.
    pub(crate) fn bind(&mut self, binding: ChannelBinding, transaction_id: Option<TransactionId>) {
        self.channels.insert(binding.peer, binding.channel);
        self.bindings.insert(binding.channel, Bound { binding, transaction_id });
    }

    pub(crate) fn unbind(&mut self, channel: u16) -> Option<ChannelBinding> {
        let Bound { binding, .. } = self.bindings.remove(&channel)?;
        self.channels.remove(&binding.peer);
        Some(binding)
    }
}
