//! What the fuzz targets check, and the inputs that they start from.
//!
//! Every target turns bytes into packets or messages, gives them to the code that turn-bpf runs, and compares what that does
//! with code that it shares nothing with: the oracle, the dissector and the message reader of `turn-testkit`, or a plain
//! account of what happened, kept by the target. A finding is a panic.

pub mod bytes;
pub mod control_socket;
pub mod frame_translation;
pub mod lease_sequences;
pub mod seeds;
pub mod snoop_messages;
pub mod stun_attributes;
