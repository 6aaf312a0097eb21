//! What turn-bpf cannot do it says in one clear sentence, and leaves nothing attached.

mod arguments;
mod attempt;
mod capacity;
mod egress;
mod interfaces;
mod neighbours;
mod privileges;

const BINARY: &str = env!("CARGO_BIN_EXE_turn-bpf");
