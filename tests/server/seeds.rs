//! What fuzzing starts from, and has found, replayed on whole connections. The functions are those that are fuzzed.

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
