//! Calls that are older than turn-bpf, adopted by what the server is seen doing with their packets.

use std::net::SocketAddr;
use std::time::Duration;

use turn_datapath::FlowKey;
use turn_datapath::joining::{Sighting, origin};
use turn_snoop::{CameIn, FiveTuple, Leg};
use zerocopy::FromBytes as _;

use super::{Daemon, addresses};
use crate::flow_table;
use crate::object::Plain;

/// How long such calls are looked for. A channel binding lasts for ten minutes unless it is renewed (RFC 8656 section 12), and whose is
/// renewed is known from then on.
pub(super) const PERIOD: Duration = Duration::from_secs(600);

impl Daemon {
    /// This host sent a datagram that no flow expects.
    pub(super) fn handle_sighting(&mut self, now: Duration, record: &[u8]) {
        let Ok((sighting, _)) = Sighting::read_from_prefix(record) else { return };
        let came_in = came_in(&sighting);
        let output = leg(&sighting.header.key);
        if let Some(refusal) = self.snoop.handle_output(now, output, sighting.fingerprint, came_in) {
            self.tell_of_refusal(output.destination, output.source, refusal);
        }
        self.obey();
    }

    /// Has control messages of a 5-tuple copied from now on.
    pub(super) fn follow(&mut self, FiveTuple { client, server }: FiveTuple) {
        if let Err(error) = self.clients.insert(Plain(flow_table::key_of(client, server, 0)), 1, 0) {
            tracing::warn!(%client, %server, error = &error as &dyn std::error::Error, "its messages go unnoticed");
        }
    }
}

/// How a sighting's data came in.
pub fn came_in(sighting: &Sighting) -> CameIn {
    match sighting.origin {
        origin::SEEN => CameIn::As(leg(&sighting.input)),
        origin::UNSEEN => CameIn::Unseen,
        _ => CameIn::Ambiguous,
    }
}

/// What a key says of a datagram.
pub fn leg(key: &FlowKey) -> Leg {
    let (source, destination): (SocketAddr, SocketAddr) = addresses(key);
    let channel = key.channel.value();
    Leg { source, destination, channel: (channel != 0).then_some(channel) }
}
