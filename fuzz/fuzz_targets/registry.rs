//! See `cuttlefish_signaling_fuzz::registry::registry`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, registry::registry};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(registry, data));
