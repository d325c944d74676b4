//! See `cuttlefish_signaling_fuzz::core::envelope`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cuttlefish_signaling_fuzz::core::envelope(data));
