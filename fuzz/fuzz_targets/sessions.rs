//! See `cuttlefish_signaling_fuzz::core::sessions`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, core::sessions};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(sessions, data));
