//! turn-bpf
