//! Arming a flow before any packet was seen (`--eager`): its path is what the kernel's tables say, not what a witness
//! showed, and it holds for one lease.

use std::net::SocketAddr;

use turn_datapath::Flow;
use turn_datapath::flow::{interface_flags, path_flags};
use turn_snoop::ChannelBinding;
use turn_wire::Be16;
use turn_wire::ethernet::MacAddress;

use super::{Daemon, nanoseconds};
use crate::flow_table::HeadStart;
use crate::netlink;
use crate::route::{NextHop, next_hop};

/// The next hops from this host to both ends of a binding.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    client: NextHop,
    peer: NextHop,
}

impl Ends {
    /// None where either is not known, or is this host.
    pub(super) async fn of(
        binding: &ChannelBinding,
        relayed: SocketAddr,
    ) -> Result<Option<Self>, netlink::Error> {
        let (client, server) = (binding.five_tuple.client, binding.five_tuple.server);
        let Some(client) = next_hop(server.ip(), client.ip()).await? else { return Ok(None) };
        let Some(peer) = next_hop(relayed.ip(), binding.peer.ip()).await? else { return Ok(None) };
        Ok(Some(Self { client, peer }))
    }
}

impl Daemon {
    /// A lease for both directions, where both interfaces are attached to. Packets are taken to come by the
    /// interfaces that answers leave by; where they do not, they go to the server, and its witness sets it right.
    pub(super) fn head_start(&self, ends: &Ends) -> Option<HeadStart> {
        Some(HeadStart {
            client_to_peer: self.leased(&ends.client, &ends.peer)?,
            peer_to_client: self.leased(&ends.peer, &ends.client)?,
        })
    }

    fn leased(&self, way_in: &NextHop, way_out: &NextHop) -> Option<Flow> {
        let within = self.attached.iter().find(|one| one.ifindex == way_in.ifindex)?;
        let out = self.attached.iter().find(|one| one.ifindex == way_out.ifindex)?;
        let (in_flags, out_flags) = (within.kernel_flags(), out.kernel_flags());
        // Servers send what fits with the don't-fragment flag, as the kernel does by default.
        let mut flags = path_flags::DONT_FRAGMENT;
        let takes_all = in_flags & (interface_flags::GENERIC | interface_flags::TC);
        if takes_all | (out_flags & interface_flags::TRANSMITS) != 0 {
            flags |= path_flags::REDIRECT;
        }
        if takes_all | (out_flags & interface_flags::TRANSMITS_PARTS) != 0 {
            flags |= path_flags::REDIRECT_PARTS;
        }
        if out_flags & interface_flags::ONLY_REDIRECT != 0 {
            flags |= path_flags::ONLY_REDIRECT;
        }
        let now = nanoseconds(self.clock.now());
        let link_mtu = out.mtu.min(u32::from(u16::MAX)) as u16;
        Some(Flow {
            lease_until: now.saturating_add(self.terms.lease),
            heartbeat_at: now.saturating_add(self.terms.heartbeat),
            out_mtu: way_out.mtu.map_or(link_mtu, |mtu| mtu.min(u32::from(link_mtu)) as u16),
            out_mtu_until: now.saturating_add(self.terms.lease),
            link_mtu,
            path_flags: flags,
            out_mac_destination: mac(way_out.mac),
            out_mac_source: mac(out.mac?),
            out_ifindex: out.ifindex,
            in_ifindex: within.ifindex,
            in_mac: mac(within.mac?),
            armed: 1,
            ..Flow::default()
        })
    }
}

fn mac([a, b, c, d, e, f]: [u8; 6]) -> MacAddress {
    MacAddress([[a, b], [c, d], [e, f]].map(|word| Be16::new(u16::from_be_bytes(word))))
}
