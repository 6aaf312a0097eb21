#![no_main]
//! See `turn_bpf_fuzz::frame_translation`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| turn_bpf_fuzz::frame_translation::check(data));
