//! See `cuttlefish_signaling_fuzz::core::envelope`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, core::envelope};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(envelope, data));
