//! The node of a cluster: its connection to the engine, and those to other nodes.

pub mod ask;
pub(crate) mod client_counts;
pub mod client_facts;
pub mod details;
pub mod engine;
pub mod forwards;
pub(crate) mod handle;
pub(in crate::server) mod reach;
pub(in crate::server) mod readiness;
#[cfg(feature = "cluster")]
pub mod redis;
pub(crate) mod survey;
pub(crate) mod surveyed;
pub mod view;
