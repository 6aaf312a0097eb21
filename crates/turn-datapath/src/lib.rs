//! What to do with a packet: classify it, translate it, and decide by lease and witness whether to.
//!
//! The same source runs in the kernel and on the host, over two small traits: a [`Frame`] is a packet that can
//! be read and rewritten, [`Flows`] is the state that outlives it. Nothing here can panic, and every failure
//! leaves the frame as it came.
//!
//! Start reading at [`ingress::ingress`] and [`egress::Outgoing`].
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod control;
pub mod egress;
pub mod fingerprint;
pub mod flow;
pub mod frame;
pub mod ingress;
pub mod joining;
pub mod kept;
pub mod packet;
pub mod path_mtu;
pub mod rate;
pub mod reason;
pub mod translate;
pub mod unseen_tag;
pub mod unseen_train;

pub use control::{ControlMessage, FlowEvent, RecordHeader};
pub use egress::Outgoing;
pub use flow::{Flow, FlowKey, Interface, LeaseTerms, PathMtu};
pub use frame::{Beside, Flows, Frame, Resizing};
pub use ingress::{Action, ingress};
pub use reason::Reason;
