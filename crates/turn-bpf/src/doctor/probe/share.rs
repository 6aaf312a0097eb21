//! How much of the call the kernel relayed, as the server's turn-bpf counts it.

use std::net::SocketAddr;
use std::path::Path;

use serde::Serialize;

use super::Ends;
use crate::control::client::{self, ClientError};
use crate::control::document::{SessionRow, State};
use crate::control::selector::{AddressPattern, Selector};
use crate::interfaces;

/// What the daemon says of the call, or why it says nothing.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Share {
    /// It knows the call.
    Known(SharedBy),
    /// It does not, or cannot be asked from here.
    Unknown {
        /// Why, and how to see it.
        unknown: String,
    },
}

/// The call's packets by who relayed them, both ways together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SharedBy {
    /// Which part of them the kernel relayed, 0 to 1.
    pub share: f64,
    /// Packets relayed in the kernel.
    pub kernel_packets: u64,
    /// Packets left to the server.
    pub spilled_packets: u64,
    /// Who relayed them at the end.
    pub state: State,
    /// Why not the kernel, both ways.
    pub reason: Option<String>,
    /// The same in words.
    pub explanation: Option<String>,
}

impl Share {
    /// Asks the daemon at this socket, while the call is not over.
    pub fn of(control: &Path, ends: &Ends, is_own_machine: bool) -> Self {
        let client = Some(AddressPattern::Transport(ends.client));
        let found = client::sessions(control, &Selector { client, ..Selector::default() });
        let unknown = match found.map(|document| document.sessions) {
            Ok(rows) => match rows.into_iter().find(|row| row.peer == ends.peer) {
                Some(row) => return Self::Known(SharedBy::read(&row)),
                None => format!(
                    "turn-bpf at {} knows no session of {}: is it attached to the interface that this call comes in by, at the \
                     server's own host?",
                    control.display(),
                    ends.client
                ),
            },
            Err(ClientError::NoDaemon { .. }) => elsewhere(control, ends),
            Err(error) => error.to_string(),
        };
        let unknown = if is_own_machine { format!("{OWN_MACHINE}. {unknown}") } else { unknown };
        Self::Unknown { unknown }
    }
}

impl SharedBy {
    fn read(row: &SessionRow) -> Self {
        let directions = [row.client_to_peer, row.peer_to_client];
        let kernel_packets = directions.iter().map(|direction| direction.kernel_packets).sum();
        let spilled_packets = directions.iter().map(|direction| direction.spilled_packets).sum();
        let all = u64::saturating_add(kernel_packets, spilled_packets);
        Self {
            share: if all == 0 { 0.0 } else { kernel_packets as f64 / all as f64 },
            kernel_packets,
            spilled_packets,
            state: row.state,
            reason: row.reason.clone(),
            explanation: row.explanation.clone(),
        }
    }
}

fn elsewhere(control: &Path, ends: &Ends) -> String {
    format!(
        "no turn-bpf can be asked at {} here. On the server, while the call lasts: turn-bpf sessions --client {}; afterwards its \
         log has the session's totals. Or have the socket here: ssh -NL /tmp/turn-bpf.sock:{} SERVER, and --control \
         /tmp/turn-bpf.sock",
        control.display(),
        ends.client,
        crate::control::DEFAULT_SOCKET,
    )
}

/// Whether a server is reached without leaving this machine.
pub async fn is_own_machine(server: SocketAddr) -> bool {
    interfaces::local_addresses().await.is_ok_and(|addresses| addresses.contains(&server.ip()))
}

/// Said where a probe cannot be relayed in the kernel, whatever turn-bpf does.
pub const OWN_MACHINE: &str = "the server is on this machine, so that the call's packets come in by no interface, and none can be \
                               relayed in the kernel: probe from another machine to see that";
