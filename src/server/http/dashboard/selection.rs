//! The devices of one viewer: those of this node, and those of the other nodes of its cluster.

use std::sync::Arc;

use tokio::task::yield_now;

use super::view::View;
use crate::core::hub::{Device, DeviceList};
use crate::core::peer::Grant;
use crate::protocol::DeviceId;
use crate::server::cluster::handle::Cluster;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// The maximum number of devices in an event. A search finds the others.
const MOST_ROWS: usize = 1_000;
/// The entries of the registry after which reading them yields.
const ENTRIES_AT_ONCE: usize = 256;

/// A device of this node, or of another one.
pub(super) enum Listed {
    /// A device of this node.
    Here {
        /// The device.
        device: Arc<Device>,
        /// Whether the registry of the cluster does not have it.
        unclaimed: bool,
    },
    /// A device of another node.
    There(RemoteDevice),
}

impl Listed {
    fn id(&self) -> &DeviceId {
        match self {
            Self::Here { device, .. } => &device.id,
            Self::There(device) => &device.id,
        }
    }
}

/// The devices of one viewer.
///
/// It is made again when a device has come or gone: id, owner and name of a device do not change, and its group only
/// where a hook that filters device info comes or goes.
#[derive(Default)]
pub(super) struct Selection {
    /// The revisions of the list of devices of this node, and of the copy of the registry.
    revisions: Option<(u64, u64)>,
    /// Whether groups that come from device info are hidden.
    pub(super) hides_groups: bool,
    /// The devices of this node of a viewer with a grant; `None` if it may see all.
    granted: Option<Vec<Arc<Device>>>,
    /// The number of registered devices that the viewer may see.
    pub(super) devices: usize,
    /// The number of those that match the search.
    pub(super) matching: usize,
    /// The matching devices, sorted by id, up to the maximum.
    pub(super) first: Vec<Listed>,
}

impl Selection {
    /// Reads the lists of devices, if they have changed. Yields after each chunk.
    pub(super) async fn update(&mut self, shared: &Shared, grant: &Grant, view: &View) {
        let hides_groups = shared.hooks.filters_device_info();
        let directory = shared.cluster.as_ref().map_or(0, |cluster| cluster.directory_revision());
        if self.revisions == Some((shared.hub.list_revision(), directory)) && self.hides_groups == hides_groups {
            return;
        }
        let (revision, devices) = shared.hub.device_list();
        let granted = grant.devices.is_some().then(Vec::new);
        *self = Self { revisions: Some((revision, directory)), hides_groups, granted, ..Self::default() };
        self.add_here(shared, &devices, grant, view).await;
        if let Some(cluster) = &shared.cluster {
            self.mark_unclaimed(cluster);
            self.add_there(shared, cluster, grant, view).await;
            if grant.devices.is_none() && view.is_all() {
                // Not all entries were read.
                self.devices = devices.len() + only_there(cluster, &devices).await;
                self.matching = self.devices;
            }
            self.first.sort_by(|one, other| one.id().cmp(other.id()));
            self.first.truncate(MOST_ROWS);
        }
    }

    /// Adds the devices of this node.
    async fn add_here(&mut self, shared: &Shared, devices: &DeviceList, grant: &Grant, view: &View) {
        let here = |device: &Arc<Device>| Listed::Here { device: Arc::clone(device), unclaimed: false };
        if grant.devices.is_none() && view.is_all() {
            (self.devices, self.matching) = (devices.len(), devices.len());
            self.first = devices.iter().take(MOST_ROWS).map(here).collect();
            return;
        }
        for chunk in devices.chunks() {
            for device in chunk.iter().filter(|device| grant.covers(&device.id)) {
                self.devices += 1;
                if let Some(granted) = &mut self.granted {
                    granted.push(Arc::clone(device));
                }
                if view.shows(shared, device) {
                    self.matching += 1;
                    if self.first.len() < MOST_ROWS {
                        self.first.push(here(device));
                    }
                }
            }
            yield_now().await;
        }
    }

    /// Marks the devices of this node that the registry does not have for it.
    fn mark_unclaimed(&mut self, cluster: &Cluster) {
        let holders = cluster.holders_here(self.first.iter().map(Listed::id));
        for (listed, holder) in self.first.iter_mut().zip(holders) {
            if let Listed::Here { unclaimed, .. } = listed {
                *unclaimed = holder != Some(true);
            }
        }
    }

    /// Adds the devices of other nodes. For a viewer that sees all, the first are enough.
    async fn add_there(&mut self, shared: &Shared, cluster: &Cluster, grant: &Grant, view: &View) {
        let sees_all = grant.devices.is_none() && view.is_all();
        let (mut after, mut rows) = (None, 0);
        while !(sees_all && rows == MOST_ROWS) {
            let entries = cluster.entries_after(after.as_ref(), ENTRIES_AT_ONCE);
            for (id, entry) in &entries {
                let is_there = cluster.is_other(entry) && shared.hub.device(id).is_none();
                if !is_there || !grant.covers(id) {
                    continue;
                }
                self.devices += 1;
                let device = cluster.remote(id, entry).filter(|device| view.shows_remote(device, self.hides_groups));
                if let Some(device) = device {
                    self.matching += 1;
                    if rows < MOST_ROWS {
                        rows += 1;
                        self.first.push(Listed::There(device));
                    }
                }
            }
            let Some((last, _)) = entries.into_iter().next_back() else { return };
            after = Some(last);
            yield_now().await;
        }
    }

    /// The number of clients of the devices of this node that the viewer may see.
    pub(super) fn clients(&self, shared: &Shared) -> usize {
        let count = |devices: &Vec<Arc<Device>>| devices.iter().map(|device| device.client_count()).sum();
        self.granted.as_ref().map_or_else(|| shared.hub.client_count(), count)
    }
}

/// The number of devices that the registry has for other nodes, and that are not here.
async fn only_there(cluster: &Cluster, here: &DeviceList) -> usize {
    let mut both = 0;
    for chunk in here.chunks() {
        let holders = cluster.holders_here(chunk.iter().map(|device| &device.id));
        both += holders.iter().filter(|holder| **holder == Some(false)).count();
        yield_now().await;
    }
    cluster.entries_of_others().saturating_sub(both)
}
