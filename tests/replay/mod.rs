//! Replays the fuzzing seeds and findings.

use std::path::Path;

/// Runs the fuzzed function on every seed of a target. There is at least one.
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
