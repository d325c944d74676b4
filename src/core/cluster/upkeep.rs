//! State of the upkeep, which is a look at the registry now and then, of the ICE servers that all nodes share, and of the
//! devices that this node has announced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::names::Incarnation;
use super::registry::{Epoch, Expectation};
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
    /// Time from which an id without an entry has no holder: an engine that has lost entries has them again by then.
    pub(super) absence_counts_at: Instant,
}

impl Upkeep {
    pub(super) fn new(next: Instant, now: Instant) -> Self {
        Self { next, after: None, dead: BTreeMap::new(), absence_counts_at: now }
    }
}

/// The ICE servers that all nodes share.
#[derive(Debug, Default)]
pub(super) struct SharedIce {
    /// The servers, and the registry that has them.
    pub(super) known: Option<(Epoch, Arc<str>)>,
    /// Servers that this node sets, and the registry may not have yet.
    pub(super) wanted: Option<Setting>,
    /// Whether those in the registry may be encrypted with an earlier secret.
    pub(super) seals: bool,
    /// Records that are being signed again, after the servers.
    pub(super) signing: Option<Signing>,
}

/// Records that are being signed with another secret.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signing {
    /// Number of the last operation that has to be answered.
    pub(super) until: u64,
    /// Whether claims and announcements that were sent before, with the earlier secret, are signed again after that.
    pub(super) again: bool,
}

/// An order to set the servers. Without any, those that are there are removed.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) servers: Option<Arc<str>>,
}

/// Announcements of one node.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    pub(super) pending: BTreeMap<DeviceId, Pending>,
    /// Whether this node has announced any since its start.
    pub(super) any: bool,
    /// Announcements without an outcome, by number.
    pub(super) asked: BTreeMap<u64, Outcomes>,
    /// Greatest number of announcements in the registry.
    pub(super) most: usize,
    /// Last id that was announced again.
    pub(super) after: Option<DeviceId>,
}

/// A device that is announced, and has not registered.
#[derive(Debug)]
pub(super) struct Pending {
    /// Number of the announcement.
    pub(super) number: u64,
    pub(super) details: Arc<str>,
    /// Whether the engine was asked.
    pub(super) sent: bool,
    /// Whether the engine has it, as far as is known: changes that arrive from then on are later ones.
    pub(super) confirmed: bool,
}

/// Outcomes of an announcement, of which some are missing.
#[derive(Debug)]
pub(super) struct Outcomes {
    pub(super) devices: usize,
    /// Operations without an answer.
    pub(super) missing: usize,
    pub(super) known: Vec<Expectation>,
    /// Devices that have registered on other nodes. The control connection hears of them after the outcomes.
    pub(super) came: BTreeSet<DeviceId>,
}
