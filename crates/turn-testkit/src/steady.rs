//! Steady traffic of [`crate::offload::Offload::steady`], watched where it arrives.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::lab::{Lab, LabError};
use crate::offload::{TO_CLIENT, TO_PEER};
use crate::wire::Observer;

/// Sees what comes to the client and to the peer.
#[derive(Debug)]
pub struct Arrivals {
    at_client: Observer,
    at_peer: Observer,
}

/// How many packets were sent, and how many of them did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Losses {
    /// Between the first and the last that arrived.
    pub sent: u64,
    /// Of these.
    pub lost: u64,
}

impl Arrivals {
    /// From now on.
    pub fn watch(lab: &Lab) -> Result<Self, LabError> {
        Ok(Self {
            at_client: Observer::start(&lab.client, "cli0")?,
            at_peer: Observer::start(&lab.peer, "peer0")?,
        })
    }

    /// What was lost on the way to these two. Fails the test where nothing arrived at one of them.
    pub fn losses(self, client: SocketAddr, peer: SocketAddr) -> Losses {
        let to_client = self.at_client.arrivals(|one| one.destination == client);
        let to_client = to_client.iter().filter_map(|one| number_of(one.payload.get(4..)?, TO_CLIENT));
        let to_peer = self.at_peer.arrivals_for(peer);
        let to_peer = to_peer.iter().filter_map(|one| number_of(&one.payload, TO_PEER));
        let ways: [BTreeSet<u64>; 2] = [to_client.collect(), to_peer.collect()];
        let arrived: u64 = ways.iter().map(|way| way.len() as u64).sum();
        let end = |end: Option<&u64>| *end.expect("packets arrived both ways");
        let sent = ways.iter().map(|way| end(way.last()) - end(way.first()) + 1).sum();
        Losses { sent, lost: sent - arrived }
    }
}

/// The number that a pump has put behind its payload.
fn number_of(payload: &[u8], what: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*payload.strip_prefix(what)?.first_chunk()?))
}
