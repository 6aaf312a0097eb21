//! How much happened in the model.

use std::fmt;

/// How often things happened, over all runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub steps: u64,
    pub sent: u64,
    pub relayed: u64,
    pub client_to_client: u64,
    pub by_server: u64,
    pub witnesses: u64,
    pub path_changes: u64,
    pub heartbeats: u64,
    pub behind: u64,
    pub other_payloads: u64,
    pub records_lost: u64,
    pub joined: u64,
    pub unrelayable: u64,
}

impl Tally {
    /// Counts what happened elsewhere, too.
    pub fn add(&mut self, other: Self) {
        for (count, more) in [
            (&mut self.steps, other.steps),
            (&mut self.sent, other.sent),
            (&mut self.relayed, other.relayed),
            (&mut self.client_to_client, other.client_to_client),
            (&mut self.by_server, other.by_server),
            (&mut self.witnesses, other.witnesses),
            (&mut self.path_changes, other.path_changes),
            (&mut self.heartbeats, other.heartbeats),
            (&mut self.behind, other.behind),
            (&mut self.other_payloads, other.other_payloads),
            (&mut self.records_lost, other.records_lost),
            (&mut self.joined, other.joined),
            (&mut self.unrelayable, other.unrelayable),
        ] {
            *count += more;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} packets sent: {} relayed in the kernel ({} from client to client), {} by the server, {} by nobody; \
             {} witnesses, {} path changes, {} heartbeats, {} behind one, {} of other payload; {} records lost, {} calls joined",
            self.steps,
            self.sent,
            self.relayed,
            self.client_to_client,
            self.by_server,
            self.unrelayable,
            self.witnesses,
            self.path_changes,
            self.heartbeats,
            self.behind,
            self.other_payloads,
            self.records_lost,
            self.joined
        )
    }
}
