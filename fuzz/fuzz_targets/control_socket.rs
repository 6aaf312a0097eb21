#![no_main]
//! See `turn_bpf_fuzz::control_socket`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| turn_bpf_fuzz::control_socket::check(data));
