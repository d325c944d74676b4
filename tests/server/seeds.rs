//! Replays the fuzzing seeds and findings on whole connections with the functions that are fuzzed.

use crate::fuzzed;
use crate::replay::replay;

#[test]
fn requests_hold_on_all_seeds() {
    replay("http", fuzzed::http);
}

#[test]
fn connections_hold_on_all_seeds() {
    replay("connection", fuzzed::connection);
}
