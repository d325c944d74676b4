//! What fuzzing starts from, and has found, replayed. The functions are those that are fuzzed.

use std::path::Path;

use crate::fuzzed;

/// Every seed of a target. There is at least one.
fn replay(target: &str, test: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        println!("{}", file.display());
        test(&std::fs::read(file).unwrap());
        count += 1;
    }
    assert!(count > 0);
}

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
