//! State of the upkeep, which is a look at the registry now and then, and of the ICE servers that all nodes share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::names::Incarnation;
use super::registry::Epoch;
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

/// The ICE servers that all nodes share.
#[derive(Debug, Default)]
pub(super) struct SharedIce {
    /// The servers, and the registry that has them.
    pub(super) known: Option<(Epoch, Arc<str>)>,
    /// Servers that this node sets, and the registry may not have yet.
    pub(super) wanted: Option<Setting>,
}

/// An order to set the servers. Without any, those that are there are removed.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) servers: Option<Arc<str>>,
}
