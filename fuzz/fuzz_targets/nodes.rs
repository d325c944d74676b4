//! See `cuttlefish_signaling_fuzz::nodes::nodes`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, nodes::nodes};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(nodes, data));
