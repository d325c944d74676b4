//! See `cuttlefish_signaling_fuzz::tokens::tokens`.

#![no_main]

use cuttlefish_signaling_fuzz::{bound::within_bounds, tokens::tokens};

libfuzzer_sys::fuzz_target!(|data: &[u8]| within_bounds(tokens, data));
