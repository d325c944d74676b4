//! What fuzzing starts from, and has found, replayed. The functions are those that are fuzzed.

use crate::fuzzed;
use crate::replay::replay;

#[test]
fn of_the_parser() {
    replay("envelope", fuzzed::envelope);
}

#[test]
fn of_the_sessions() {
    replay("sessions", fuzzed::sessions);
}

#[test]
fn of_what_hooks_return() {
    replay("hooks", fuzzed::hooks);
}
