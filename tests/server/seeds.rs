//! What fuzzing starts from, and has found, replayed on whole connections. The functions are those that are fuzzed.

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
fn of_requests() {
    replay("http", fuzzed::http);
}

#[test]
fn of_connections() {
    replay("connection", fuzzed::connection);
}
