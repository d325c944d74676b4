//! The dashboard: its event stream, the events that the stream carries, and the requests by which a viewer manages peers.

use std::time::Duration;

use crate::server::shared::Shared;

pub(in crate::server) mod about;
mod cassette;
pub(in crate::server) mod events;
pub(in crate::server) mod manage;
mod nodes;
pub(in crate::server) mod overview;
mod rows;
mod selection;
mod snapshot;
mod totals;
mod view;

/// The interval between checks for changes.
const TICK: Duration = Duration::from_millis(250);

/// The pause after an update of this length, so that a page has `viewer_bytes_per_second` at most.
fn pause_after(shared: &Shared, bytes: usize) -> Duration {
    let millis = bytes.saturating_mul(1000) / shared.settings().limits.http.viewer_bytes_per_second;
    TICK.max(Duration::from_millis(millis as u64))
}
