//! The node of a cluster: its connection to the engine, and those to other nodes.

pub mod ask;
pub(in crate::server) mod client_facts;
pub(in crate::server) mod details;
pub mod engine;
pub(in crate::server) mod forwards;
pub(crate) mod handle;
pub(in crate::server) mod readiness;
#[cfg(feature = "cluster")]
pub mod redis;
pub(crate) mod survey;
pub(crate) mod surveyed;
pub mod view;
