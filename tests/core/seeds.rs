//! Replays the fuzzing seeds and findings with the functions that are fuzzed.

use crate::replay::replay;
use crate::{fuzzed, fuzzed_tokens};

#[test]
fn parser_holds_on_all_seeds() {
    replay("envelope", fuzzed::envelope);
}

#[test]
fn sessions_hold_on_all_seeds() {
    replay("sessions", fuzzed::sessions);
}

#[test]
fn hook_results_hold_on_all_seeds() {
    replay("hooks", fuzzed::hooks);
}

#[test]
fn tokens_hold_on_all_seeds() {
    replay("tokens", fuzzed_tokens::tokens);
}
