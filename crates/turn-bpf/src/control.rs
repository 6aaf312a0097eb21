//! The control socket: how the daemon tells the other commands what it does. HTTP and JSON over a Unix socket.
//!
//! The documents are a contract with other people's scripts: keys may be added, never renamed or removed.

pub mod client;
pub mod document;
pub mod event;
pub mod selector;
pub mod server;
pub mod table;

#[cfg(test)]
mod tests;

/// Where the daemon listens if it is not told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/turn-bpf/control.sock";
