//! What is on the wires outside the server, with every checksum computed anew.

use std::net::{IpAddr, SocketAddr};

use turn_testkit::dissect::{Dissected, Flaw, dissect};
use turn_testkit::lab::{Family, Namespace};
use turn_testkit::offload::Offload;
use turn_testkit::wire::Wire;

use crate::calls::Talk;

/// A UDP datagram on a wire.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// The wire.
    pub wire: &'static str,
    /// What is in it.
    pub packet: Dissected,
}

impl Datagram {
    /// Source and destination transport address.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.packet.source, self.packet.destination)
    }
}

/// All wires of a lab that end outside the server's namespace, from now on.
pub struct Wires {
    wires: Vec<(&'static str, Wire)>,
    servers: Vec<IpAddr>,
}

impl Wires {
    /// Those that every lab has.
    pub fn of(offload: &Offload) -> Self {
        let wires = offload.lab.wires().into_iter();
        let open = |(namespace, interface): (&Namespace, &'static str)| {
            (interface, Wire::open(namespace, interface).expect("a packet socket"))
        };
        let addresses = [Family::V4, Family::V6].map(|family| offload.lab.addresses(family));
        let servers = addresses.iter().flat_map(|family| [family.listen, family.relay]).collect();
        Self { wires: wires.map(open).collect(), servers }
    }

    /// One more.
    pub fn and(mut self, namespace: &Namespace, interface: &'static str) -> Self {
        self.wires.push((interface, Wire::open(namespace, interface).expect("a packet socket")));
        self
    }

    /// The UDP datagrams since the last call. All their checksums are right, and none is from the server to itself.
    pub fn datagrams(&self) -> Vec<Datagram> {
        let mut datagrams = Vec::new();
        for (wire, socket) in &self.wires {
            for frame in socket.seen().expect("frames") {
                let packet = match dissect(&frame.bytes).and_then(Dissected::verify) {
                    Ok(packet) => packet,
                    Err(Flaw::EtherType(_) | Flaw::Protocol(_)) => continue,
                    Err(flaw) => panic!("{flaw} on {wire}: {:02x?}", frame.bytes),
                };
                let (source, destination) = (packet.source.ip(), packet.destination.ip());
                let is_to_itself = self.servers.contains(&source) && self.servers.contains(&destination);
                assert!(source != destination && !is_to_itself, "{packet:?} on {wire}");
                assert_ne!(packet.source_mac, packet.destination_mac, "{packet:?} on {wire}");
                datagrams.push(Datagram { wire, packet });
            }
        }
        datagrams
    }
}

/// Every wire that carried packets of these ends carried as many as the talk had, but for what the server itself lost.
pub fn assert_carried(datagrams: &[Datagram], ends: (SocketAddr, SocketAddr), talk: &Talk) {
    let mut wires: Vec<&str> =
        datagrams.iter().filter(|datagram| datagram.ends() == ends).map(|datagram| datagram.wire).collect();
    wires.sort_unstable();
    let carried: Vec<_> =
        wires.chunk_by(|one, other| one == other).map(|same| (same[0], same.len())).collect();
    assert!(!carried.is_empty(), "nothing from {} to {}", ends.0, ends.1);
    let expected = talk.sent - talk.lost..=talk.sent;
    let is_right = carried.iter().all(|(_, found)| expected.contains(&(*found as u64)));
    assert!(is_right, "{ends:?}: {carried:?}, not {expected:?}");
}
