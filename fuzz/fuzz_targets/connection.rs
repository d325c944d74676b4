//! See `cuttlefish_signaling_fuzz::server::connection`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cuttlefish_signaling_fuzz::server::connection(data));
