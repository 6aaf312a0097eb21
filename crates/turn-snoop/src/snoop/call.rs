//! Calls that were there before anyone looked, found by what the server does with their data.

use std::net::SocketAddr;
use std::time::Duration;

use turn_wire::stun::AddressFamily;

use super::Snoop;
use super::adoption::LIFETIME;
use crate::joining::{CameIn, Leg};
use crate::{Allocation, ChannelBinding, Command, FiveTuple, Refusal};

impl Snoop {
    /// A datagram that no binding explains was sent by this host itself; `fingerprint` stands for its data. Says why nothing was learned
    /// where something could have been.
    ///
    /// A call is adopted once the server was seen relaying it both ways, several times in a row with different data, and nothing else
    /// was seen that would not fit. Then the server is to be seen relaying it still.
    pub fn handle_output(
        &mut self,
        now: Duration,
        output: Leg,
        fingerprint: u64,
        came_in: CameIn,
    ) -> Option<Refusal> {
        self.handle_timeout(now);
        let refusal = self.learn_from_output(now, output, fingerprint, came_in).err()?;
        self.refusals.count(refusal);
        Some(refusal)
    }

    fn learn_from_output(
        &mut self,
        now: Duration,
        output: Leg,
        fingerprint: u64,
        came_in: CameIn,
    ) -> Result<(), Refusal> {
        let is_shown = self.directions.see(now, output, fingerprint, came_in)?;
        let CameIn::As(input) = came_in else { return Ok(()) };
        if !is_shown || !self.directions.is_shown(output.reversed(), input.reversed()) {
            return Ok(());
        }
        // What two clients of one server send to each other does not show their relayed transport addresses.
        let (from_client, to_peer) = match (input.channel, output.channel) {
            (Some(channel), None) => ((input, channel), output),
            (None, Some(channel)) => ((output.reversed(), channel), input.reversed()),
            _ => return Ok(()),
        };
        self.directions.forget(output);
        self.directions.forget(input.reversed());
        self.adopt(now, from_client, to_peer)
    }

    /// The server relays what a client sends on this channel as what goes to a peer, and the other way round.
    fn adopt(
        &mut self,
        now: Duration,
        (from_client, channel): (Leg, u16),
        to_peer: Leg,
    ) -> Result<(), Refusal> {
        let five_tuple = FiveTuple { client: from_client.source, server: from_client.destination };
        let (relayed, peer) = (to_peer.source, to_peer.destination);
        self.refuse_call(five_tuple, relayed, peer)?;

        match self.allocations.of(five_tuple) {
            None if self.allocations.len() >= self.limits.allocations => {
                return Err(Refusal::TooManyAllocations);
            }
            None => {}
            Some(allocation) if allocation.is_mobile() => return Err(Refusal::MobileAllocation),
            // Its channels were seen being bound, or were not bound at all.
            Some(allocation) if !allocation.is_adopted() => return Err(Refusal::ContradictedCall),
            Some(allocation) => {
                let is_bound = allocation.binding_of(channel).is_some()
                    || allocation.bindings_against(channel, peer).next().is_some();
                if is_bound {
                    return Err(Refusal::ContradictedCall);
                }
                if allocation.binding_count() >= self.limits.channels_per_allocation {
                    return Err(Refusal::TooManyChannels);
                }
            }
        }
        if self.allocations.of(five_tuple).is_none() {
            self.allocations.insert(Allocation::adopted(now, five_tuple, LIFETIME));
        }
        let known = self
            .allocations
            .of(five_tuple)
            .and_then(|allocation| allocation.relayed_of(AddressFamily::of(&relayed)))
            .flatten();
        match known {
            None => self.allocations.set_relayed(five_tuple, relayed),
            Some(known) if known == relayed => {}
            Some(_) => return Err(Refusal::OtherRelayedAddress),
        }
        let binding = ChannelBinding { five_tuple, channel, peer, relayed: Some(relayed) };
        if let Some(allocation) = self.allocations.of_mut(five_tuple) {
            allocation.bind(binding, None);
        }
        self.binding_count += 1;
        self.commands.push_back(Command::Follow(five_tuple));
        self.commands.push_back(Command::BindDoubtful(binding));
        Ok(())
    }

    fn refuse_call(
        &self,
        five_tuple: FiveTuple,
        relayed: SocketAddr,
        peer: SocketAddr,
    ) -> Result<(), Refusal> {
        self.refuse_ends(five_tuple)?;
        if relayed.port() == five_tuple.server.port() || self.allocations.is_listener(relayed) {
            return Err(Refusal::RelayedAddressIsListener);
        }
        if self.allocations.owners(relayed).iter().any(|owner| *owner != five_tuple) {
            return Err(Refusal::OtherRelayedAddress);
        }
        self.refuse_any_peer(peer)
    }
}
