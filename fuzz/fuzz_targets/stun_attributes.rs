#![no_main]
//! See `turn_bpf_fuzz::stun_attributes`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| turn_bpf_fuzz::stun_attributes::check(data));
