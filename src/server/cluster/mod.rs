//! The node of a cluster: its connection to the engine, and those to other nodes.

pub mod engine;
#[cfg(feature = "cluster")]
pub mod redis;
