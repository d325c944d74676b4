//! See `cuttlefish_signaling_fuzz::server::connection`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, server::connection};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(connection, data));
