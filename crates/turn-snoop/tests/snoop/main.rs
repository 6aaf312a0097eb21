//! The rules of learning, by the messages that servers, clients and attackers send.
//!
//! Each test states one rule, so that a failure names it.

mod adoption;
mod allocate;
mod attacks;
mod channel_bind;
mod claims;
mod invariants;
mod joining;
mod lab;
mod message;
mod peers;
mod reading;
mod refresh;
mod remembering;
mod transactions;
mod users;
