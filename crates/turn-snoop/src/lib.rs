//! What the TURN server agreed to, worked out from the control messages that pass (RFC 8656).
//!
//! [`Snoop`] reads the requests that enter the host and the responses that leave it, and says which channel of which
//! 5-tuple is bound to which peer. It knows no password and verifies none. A request is only a claim; the server's own
//! success response with the same transaction id makes it a binding. Whatever it cannot read in one way only, it does
//! not learn: the server is still there and relays the data itself.
//!
//! There is no clock, no randomness and no input or output in here. The caller hands in messages and the time, and
//! takes out [`Command`]s:
//!
//! ```
//! use std::time::Duration;
//! use turn_snoop::{Limits, Snoop};
//!
//! let mut snoop = Snoop::new(Limits::default());
//! let now = Duration::from_secs(1);
//! let client = "198.51.100.1:40000".parse().unwrap();
//! let server = "192.0.2.1:3478".parse().unwrap();
//! snoop.handle_request(now, client, server, b"not STUN, therefore refused and counted");
//! assert_eq!(snoop.poll_command(), None);
//! assert_eq!(snoop.poll_timeout(), None);
//! ```
#![forbid(unsafe_code)]

mod allocation;
mod allocations;
mod command;
mod content;
mod deadlines;
mod five_tuple;
mod grant;
mod joining;
mod limits;
mod listening_ports;
mod memory;
mod peer_policy;
mod refusal;
mod snoop;
mod transactions;
mod user;

pub use allocation::Allocation;
pub use command::{ChannelBinding, Command, Revocation};
pub use five_tuple::FiveTuple;
pub use joining::{CameIn, Leg};
pub use limits::Limits;
pub use listening_ports::ListeningPorts;
pub use memory::{AllocationMemory, BindingMemory, RelayedMemory};
pub use refusal::Refusal;
pub use snoop::Snoop;
pub use user::User;
