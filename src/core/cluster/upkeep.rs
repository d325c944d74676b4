//! State of the upkeep: a look at the registry, now and then.

use std::collections::BTreeMap;
use std::time::Instant;

use super::names::Incarnation;
use crate::protocol::DeviceId;

/// State of the upkeep of one node.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// Time of the next look.
    pub(super) next: Instant,
    /// Last id that was reclaimed.
    pub(super) after: Option<DeviceId>,
    /// Nodes without a lease that have devices, and the time when each was found.
    pub(super) dead: BTreeMap<Incarnation, Instant>,
}

impl Upkeep {
    pub(super) fn new(next: Instant) -> Self {
        Self { next, after: None, dead: BTreeMap::new() }
    }
}
