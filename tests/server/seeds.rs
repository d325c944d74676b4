//! What fuzzing starts from, and has found, replayed on whole connections. The functions are those that are fuzzed.

use crate::fuzzed;
use crate::replay::replay;

#[test]
fn of_requests() {
    replay("http", fuzzed::http);
}

#[test]
fn of_connections() {
    replay("connection", fuzzed::connection);
}
