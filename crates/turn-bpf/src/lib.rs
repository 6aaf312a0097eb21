//! The daemon that offloads a TURN server, and the commands that look at it.
#![deny(unsafe_code)]

pub mod attachment;
pub mod byte_rate;
pub mod control;
pub mod daemon;
pub mod doctor;
pub mod flow_table;
pub mod generic_netlink;
pub mod host;
pub mod interfaces;
pub mod kernel_clock;
pub mod kernel_types;
pub mod layout;
pub mod metrics;
pub mod netlink;
pub mod object;
pub mod obstacle;
pub mod pins;
pub mod preflight;
pub mod route;
pub mod session_reason;
pub mod sockets;
pub mod top;
pub mod xdp_features;
