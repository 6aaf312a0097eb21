//! The BPF object.
