//! The totals of the event `overview`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::nodes::ClusterState;
use crate::core::peer::Grant;
use crate::observe::hook_errors::HookFailure;
use crate::observe::incidents::Incident;
use crate::server::shared::Shared;

/// Totals of the server.
#[derive(Serialize)]
pub(super) struct Server {
    /// The version of the server.
    version: &'static str,
    /// The start time in seconds since 1970.
    started: f64,
    /// Whether there is a journal.
    journal: bool,
    /// Registered devices that the viewer may see.
    devices: usize,
    /// Clients of those of these devices that this node has.
    clients: usize,
    /// Clients that wait for a device that the viewer may see.
    waiting: usize,
    /// The cluster; `None` for a server that is no node of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterState>,
    /// Numbers of all devices. `None` for a viewer that may see some devices only: it must not find out about others.
    #[serde(flatten)]
    totals: Option<Totals>,
}

/// Numbers of all devices and peers.
#[derive(Serialize)]
struct Totals {
    /// Open connections.
    connections: usize,
    /// Forwards accepted.
    accepted: u64,
    /// Forwards delivered.
    delivered: u64,
    /// Forwards refused.
    refused: u64,
    /// Forwards whose receiver was gone.
    gone: u64,
    /// Forwards that a fault dropped.
    dropped: u64,
    /// The number of incidents, for each kind that has happened.
    incidents: BTreeMap<&'static str, u64>,
    /// The number of calls of hooks that failed.
    hook_failures: u64,
    /// The last of them, the latest first.
    hook_errors: Vec<HookError>,
}

/// A failed call of a hook.
#[derive(Serialize)]
struct HookError {
    /// The time, in seconds since 1970.
    at: f64,
    /// The name of the hook.
    hook: &'static str,
    /// The address of the peer that the hook was called for.
    peer: String,
    /// The way in which it failed.
    how: &'static str,
}

impl Server {
    /// Reads the totals for a viewer. `devices` and `clients` are the numbers of those that it may see.
    pub(super) fn of(shared: &Shared, grant: &Grant, devices: usize, clients: usize) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: shared.started,
            journal: shared.relay.journal().is_some(),
            devices,
            clients,
            waiting: waiting(shared, grant),
            cluster: shared.cluster.as_ref().map(|cluster| ClusterState::of(shared, cluster, grant)),
            totals: grant.devices.is_none().then(|| Totals::of(shared)),
        }
    }
}

impl Totals {
    fn of(shared: &Shared) -> Self {
        let ledger = shared.relay.ledger().read();
        let counted = |incident: &Incident| (incident.as_str(), shared.incidents.of(*incident));
        Self {
            connections: shared.hub.connections(),
            accepted: ledger.accepted,
            delivered: ledger.delivered,
            refused: ledger.refused,
            gone: ledger.gone,
            dropped: ledger.dropped,
            incidents: Incident::ALL.iter().map(counted).filter(|(_, count)| *count > 0).collect(),
            hook_failures: shared.hook_failures.count(),
            hook_errors: shared.hook_failures.latest().into_iter().map(HookError::of).collect(),
        }
    }
}

impl HookError {
    fn of(HookFailure { at, hook, peer, how }: HookFailure) -> Self {
        Self { at, hook, peer, how: how.as_str() }
    }
}

/// The number of clients that wait for a device that the viewer may see.
fn waiting(shared: &Shared, grant: &Grant) -> usize {
    if grant.devices.is_none() {
        return shared.hub.waiting_count();
    }
    shared.hub.awaited(grant, usize::MAX).iter().map(|device| device.clients).sum()
}
