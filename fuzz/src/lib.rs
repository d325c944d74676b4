//! Fuzz targets: functions of arbitrary bytes that panic if a property does not hold.
//!
//! cargo-fuzz runs each target (`make fuzz`). The ordinary tests replay the seeds.

#[path = "../../tests/core/actors.rs"]
pub mod actors;
#[path = "../../tests/core/harness.rs"]
pub mod harness;
#[path = "../../tests/core/model.rs"]
pub mod model;

pub mod bound;
pub mod core;
pub mod nodes;
pub mod registry;
pub mod server;
pub mod tokens;
