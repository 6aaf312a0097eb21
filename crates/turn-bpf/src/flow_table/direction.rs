//! The packets that come in of one direction of a binding, and the outputs that prove it.

use turn_datapath::FlowKey;
use turn_snoop::{ChannelBinding, FiveTuple};
use turn_wire::{Be16, IpAddress};

use std::net::SocketAddr;

use super::{Obstacle, Traffic, key_of, unspecified_like};

/// One direction.
#[derive(Clone, Debug)]
pub struct Direction {
    pub(super) key: FlowKey,
    pub(super) outputs: Vec<FlowKey>,
    /// What stands in its way.
    pub obstacle: Option<Obstacle>,
    pub(super) is_installed: bool,
    /// What of its flow's counters is in the table's totals.
    pub(super) counted: Traffic,
}

impl Direction {
    /// From the client to its peer.
    ///
    /// The server's address is in one of the outputs only: behind 1:1 NAT, and with a relay socket that is bound to
    /// no address, it is not the advertised one. Of an allocation that is older than turn-bpf not even the port is
    /// known.
    pub(super) fn to_peer(binding: &ChannelBinding) -> Self {
        let from_anywhere = |port| FlowKey {
            source: IpAddress::ANY,
            source_port: Be16::new(port),
            ..key_of(unspecified_like(binding.peer), binding.peer, 0)
        };
        let outputs = match binding.relayed {
            Some(advertised) => {
                vec![key_of(advertised, binding.peer, 0), from_anywhere(advertised.port())]
            }
            None => vec![from_anywhere(0)],
        };
        Self::new(key_from_client(binding), outputs)
    }

    /// From the peer to the client.
    pub(super) fn from_peer(binding: &ChannelBinding, relayed: SocketAddr) -> Self {
        Self::new(key_of(binding.peer, relayed, 0), vec![output_to_client(binding)])
    }

    /// From the client to the client of its counterpart.
    pub(super) fn to_client(binding: &ChannelBinding, counterpart: &ChannelBinding) -> Self {
        Self::new(key_from_client(binding), vec![output_to_client(counterpart)])
    }

    fn new(key: FlowKey, outputs: Vec<FlowKey>) -> Self {
        Self { key, outputs, obstacle: None, is_installed: false, counted: Traffic::default() }
    }

    /// The same, not installed yet.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.key, self.outputs.clone())
    }
}

fn key_from_client(binding: &ChannelBinding) -> FlowKey {
    let FiveTuple { client, server } = binding.five_tuple;
    key_of(client, server, binding.channel)
}

fn output_to_client(binding: &ChannelBinding) -> FlowKey {
    let FiveTuple { client, server } = binding.five_tuple;
    key_of(server, client, binding.channel)
}
