#![no_main]
//! See `turn_bpf_fuzz::lease_sequences`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| turn_bpf_fuzz::lease_sequences::check(data));
