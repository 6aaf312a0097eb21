#![no_main]
//! See `turn_bpf_fuzz::snoop_messages`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| turn_bpf_fuzz::snoop_messages::check(data));
