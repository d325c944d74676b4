//! The page for people: its events, and the snapshot of the server that they carry.

pub(in crate::server) mod events;
mod snapshot;
