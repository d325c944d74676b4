//! Replays what fuzzing starts from, and has found.

use std::path::Path;

/// Feeds every seed of a target to what is fuzzed. There is at least one.
pub fn replay(target: &str, test: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut seeds: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    for seed in seeds {
        let data = std::fs::read(&seed).unwrap();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&data)));
        assert!(outcome.is_ok(), "{} does not hold", seed.display());
    }
}
