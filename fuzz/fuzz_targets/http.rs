//! See `cuttlefish_signaling_fuzz::server::http`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, server::http};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(http, data));
