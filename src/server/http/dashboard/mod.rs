//! The dashboard: its event stream, and the events that the stream carries.

pub(in crate::server) mod events;
pub(in crate::server) mod overview;
mod snapshot;
mod view;

/// The interval between checks for changes.
const TICK: std::time::Duration = std::time::Duration::from_millis(250);
