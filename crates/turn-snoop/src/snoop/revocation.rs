//! How what was learned is given up.

use std::net::SocketAddr;
use std::time::Duration;

use turn_wire::stun::{AddressFamily, Method};

use super::Snoop;
use crate::content::Content;
use crate::transactions::{Contents, MEMORY, TransactionKey};
use crate::{Allocation, ChannelBinding, Command, FiveTuple, Revocation};

impl Snoop {
    /// The transaction that made a binding turns out to stand for two requests, so the server may have granted the
    /// other one. That costs no more than speed, until the client binds the channel again.
    pub(super) fn doubt(&mut self, key: TransactionKey) {
        let binding = self
            .allocations
            .of(key.five_tuple)
            .filter(|_| key.method == Method::CHANNEL_BIND)
            .and_then(|allocation| allocation.bindings_made_by(key.id));
        if let Some(binding) = binding {
            self.unbind(binding, Revocation::Contradicted);
        }
    }

    pub(super) fn learn_nothing_for_now(&mut self, now: Duration, five_tuple: FiveTuple) {
        if let Some(allocation) = self.allocations.of_mut(five_tuple) {
            allocation.learns_nothing_until = now.saturating_add(MEMORY);
        }
    }

    pub(super) fn leave_to_server(&mut self, five_tuple: FiveTuple) {
        let Some(allocation) = self.allocations.of_mut(five_tuple) else { return };
        allocation.become_mobile();
        let bindings: Vec<ChannelBinding> = allocation.bindings().copied().collect();
        for binding in bindings {
            self.unbind(binding, Revocation::Mobility);
        }
    }

    /// The server has bound one of these, and it cannot be told which.
    pub(super) fn unbind_against(&mut self, five_tuple: FiveTuple, contents: Contents) {
        for content in contents.into_iter().flatten() {
            if let Content::ChannelBind { channel, peer } = content {
                self.unbind_excluded(five_tuple, channel, peer, Revocation::Contradicted);
            }
        }
    }

    /// A channel has one peer and a peer one channel (RFC 8656 section 12).
    pub(super) fn unbind_excluded(
        &mut self,
        five_tuple: FiveTuple,
        channel: u16,
        peer: SocketAddr,
        revocation: Revocation,
    ) {
        let Some(allocation) = self.allocations.of(five_tuple) else { return };
        for binding in allocation.bindings_against(channel, peer) {
            self.unbind(binding, revocation);
        }
    }

    /// The server gives a relayed transport address to one more allocation. It belongs to one at a time (RFC 8656 section 6), so the
    /// older one should be gone; but some servers share it among clients. So nothing that the kernel knows of the older one counts any
    /// longer, and the server itself shows whether the binding lives on. Where it is known to share the address, there is no doubt.
    pub(super) fn doubt_owners(&mut self, relayed: SocketAddr) {
        if self.allocations.is_shared(relayed) {
            return;
        }
        let owners = self.allocations.owners(relayed).iter();
        let bindings: Vec<ChannelBinding> = owners
            .filter_map(|owner| self.allocations.of(*owner))
            .flat_map(Allocation::bindings)
            .filter(|binding| binding.relayed == Some(relayed))
            .copied()
            .collect();
        let reused = Revocation::RelayedAddressReused;
        self.commands.extend(bindings.iter().map(|&binding| Command::Unbind(binding, reused)));
        self.commands.extend(bindings.into_iter().map(Command::BindDoubtful));
    }

    /// Of the allocations that have a relayed transport address one can have a certain peer: what the peer sends there goes to one client.
    pub(super) fn unbind_of_other_owners(
        &mut self,
        five_tuple: FiveTuple,
        relayed: SocketAddr,
        peer: SocketAddr,
    ) {
        let others = self.allocations.owners(relayed).iter().filter(|owner| **owner != five_tuple);
        let bindings: Vec<ChannelBinding> = others
            .filter_map(|owner| self.allocations.of(*owner))
            .flat_map(Allocation::bindings)
            .filter(|binding| binding.peer == peer)
            .copied()
            .collect();
        for binding in bindings {
            self.unbind(binding, Revocation::RelayedAddressReused);
        }
    }

    pub(super) fn unbind(&mut self, binding: ChannelBinding, revocation: Revocation) {
        let unbound = self
            .allocations
            .of_mut(binding.five_tuple)
            .and_then(|allocation| allocation.unbind(binding.channel));
        if let Some(binding) = unbound {
            self.binding_count = self.binding_count.saturating_sub(1);
            self.commands.push_back(Command::Unbind(binding, revocation));
        }
    }

    /// Ends the allocation, or only what hangs on its relayed transport address of one family.
    pub(super) fn end(
        &mut self,
        five_tuple: FiveTuple,
        family: Option<AddressFamily>,
        revocation: Revocation,
    ) {
        let Some(allocation) = self.allocations.of(five_tuple) else { return };
        match family {
            Some(family) if allocation.is_dual() => {
                let bindings: Vec<ChannelBinding> = allocation
                    .bindings()
                    .filter(|binding| AddressFamily::of(&binding.peer) == family)
                    .copied()
                    .collect();
                for binding in bindings {
                    self.unbind(binding, revocation);
                }
                self.allocations.remove_relayed(five_tuple, family);
            }
            _ => {
                self.void(five_tuple, revocation);
                self.commands.push_back(Command::Forget(five_tuple));
            }
        }
    }

    pub(super) fn void(&mut self, five_tuple: FiveTuple, revocation: Revocation) {
        let Some(allocation) = self.allocations.remove(five_tuple) else { return };
        self.binding_count = self.binding_count.saturating_sub(allocation.binding_count());
        self.commands.extend(allocation.bindings().map(|&binding| Command::Unbind(binding, revocation)));
    }
}
