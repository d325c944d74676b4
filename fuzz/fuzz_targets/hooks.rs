//! See `cuttlefish_signaling_fuzz::core::hooks`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, core::hooks};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(hooks, data));
