//! The dashboard: its event stream, and the snapshots that the stream carries.

pub(in crate::server) mod events;
mod snapshot;
