//! The test bed of turn-bpf: packets with an oracle of their own, and a laboratory of network namespaces in which a stock
//! TURN server runs. For tests only; nothing here is shared with the code under test.

pub mod cases;
pub mod checksum;
pub mod checksum_complete;
pub mod coturn;
pub mod daemon;
pub mod datagram;
pub mod dissect;
pub mod figures;
pub mod lab;
pub mod machine;
pub mod measurement;
pub mod memory;
pub mod offload;
pub mod oracle;
pub mod packet;
pub mod process;
pub mod role;
pub mod scratch;
pub mod segmentation;
pub mod steady;
pub mod switchboard;
pub mod terminal;
pub mod traffic;
pub mod turn_client;
pub mod unprivileged;
pub mod wire;
