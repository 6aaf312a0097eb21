//! Builds the BPF object from source, and embeds it.

#[path = "build/object.rs"]
mod object;

fn main() {
    println!("cargo::rustc-env=TURN_BPF_OBJECT={}", object::build("turn-bpf-ebpf").display());
}
