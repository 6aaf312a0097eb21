//! Builds the BPF object of the benchmark from source, as turn-bpf builds its own.

#[path = "../turn-bpf/build/object.rs"]
mod object;

fn main() {
    println!("cargo::rustc-env=TURN_BENCH_OBJECT={}", object::build("turn-bench-ebpf").display());
}
