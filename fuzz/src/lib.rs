//! What is fuzzed: functions of arbitrary bytes that panic where something does not hold. Each is a target of cargo-fuzz
//! (`make fuzz`), and is replayed over the seeds by the ordinary tests.

#[path = "../../tests/core/actors.rs"]
pub mod actors;
#[path = "../../tests/core/harness.rs"]
pub mod harness;
#[path = "../../tests/core/model.rs"]
pub mod model;

pub mod bound;
pub mod core;
pub mod server;
