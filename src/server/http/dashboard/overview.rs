//! The event `overview`: totals of the server, and its devices.
//!
//! Viewers without a grant and a search see the same, so that one text serves them all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::yield_now;

use super::TICK;
use super::view::{View, since, unix};
use crate::core::hub::{Awaited, Device, Traffic};
use crate::core::peer::Grant;
use crate::observe::incidents::Incident;
use crate::server::shared::Shared;

/// The maximum number of devices in an event. A search finds the others.
const MOST_ROWS: usize = 200;
/// The maximum number of devices in an event that clients wait for.
const MOST_AWAITED: usize = 50;
/// The devices after which rendering yields.
const ROWS_AT_ONCE: usize = 32;

/// Counters that differ whenever something has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Revision {
    /// Changes of the hub and the journal.
    changes: u64,
    /// Forwards accepted, and forwards with an outcome.
    forwards: [u64; 2],
    /// Open connections.
    connections: usize,
    /// Clients that wait for a device.
    waiting: usize,
    /// Incidents of all kinds.
    incidents: u64,
    /// Whether groups that come from device info are hidden.
    hides_groups: bool,
}

impl Revision {
    /// Reads the counters.
    pub(super) fn of(shared: &Shared) -> Self {
        let ledger = shared.relay.ledger().read();
        Self {
            changes: shared.changes.count(),
            forwards: [ledger.accepted, ledger.delivered + ledger.refused + ledger.gone + ledger.dropped],
            connections: shared.hub.connections(),
            waiting: shared.hub.waiting_count(),
            incidents: Incident::ALL.iter().map(|incident| shared.incidents.of(*incident)).sum(),
            hides_groups: shared.hooks.filters_device_info(),
        }
    }
}

/// The overview of all viewers that see the same.
#[derive(Default)]
pub(crate) struct Overviews {
    /// The latest one, and when it was rendered. The lock is held while one is rendered, so that viewers share it.
    latest: Mutex<Option<(Revision, Instant, Bytes)>>,
    /// How many were rendered, those of single viewers included.
    rendered: AtomicU64,
}

impl Overviews {
    /// Returns the overview for viewers without a grant and a search, with its revision.
    ///
    /// It has each change made before the call, or, unless `is_first`, it is not older than one tick. So a busy server
    /// renders it once a tick, not once for each viewer.
    pub(super) async fn current(&self, shared: &Shared, is_first: bool) -> (Revision, Bytes) {
        let wanted = Revision::of(shared);
        let mut latest = self.latest.lock().await;
        if let Some((revision, at, text)) = &*latest
            && (*revision == wanted || (!is_first && at.elapsed() < TICK))
        {
            return (*revision, text.clone());
        }
        let (revision, mut selection) = (Revision::of(shared), Selection::default());
        selection.update(shared, &Grant::default(), &View::default()).await;
        let text = self.render(shared, &Grant::default(), &selection).await;
        *latest = Some((revision, Instant::now(), text.clone()));
        (revision, text)
    }

    /// Renders the event for these devices.
    pub(super) async fn render(&self, shared: &Shared, grant: &Grant, selection: &Selection) -> Bytes {
        self.rendered.fetch_add(1, Relaxed);
        let server = Server::of(shared, grant, selection);
        let mut text = b"event: overview\ndata: {\"server\":".to_vec();
        append(&mut text, &server);
        text.extend_from_slice(b",\"waiting\":");
        append(&mut text, &awaited(shared, grant));
        text.extend_from_slice(format!(r#","matching":{},"devices":["#, selection.matching).as_bytes());
        for (at, device) in selection.first.iter().enumerate() {
            let end = text.len();
            if at > 0 {
                text.push(b',');
            }
            append(&mut text, &DeviceRow::of(shared, device));
            if text.len() > shared.settings().limits.http.viewer_bytes {
                text.truncate(end);
                break;
            }
            if at % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                yield_now().await;
            }
        }
        text.extend_from_slice(b"]}\n\n");
        text.into()
    }

    /// The number of overviews rendered so far.
    pub(in crate::server) fn rendered(&self) -> u64 {
        self.rendered.load(Relaxed)
    }
}

/// The devices of one viewer.
///
/// It is made again when a device has come or gone: id, owner and name of a device do not change, and its group only
/// where a hook that filters device info comes or goes.
#[derive(Default)]
pub(super) struct Selection {
    /// The revision of the list of devices.
    revision: Option<u64>,
    /// Whether groups that come from device info are hidden.
    hides_groups: bool,
    /// The devices of a viewer with a grant; `None` if it may see all.
    granted: Option<Vec<Arc<Device>>>,
    /// The number of registered devices that the viewer may see.
    devices: usize,
    /// The number of those that match the search.
    matching: usize,
    /// The matching devices, up to the maximum.
    first: Vec<Arc<Device>>,
}

impl Selection {
    /// Reads the list of devices, if it has changed. Yields after each chunk.
    pub(super) async fn update(&mut self, shared: &Shared, grant: &Grant, view: &View) {
        let hides_groups = shared.hooks.filters_device_info();
        if self.revision == Some(shared.hub.list_revision()) && self.hides_groups == hides_groups {
            return;
        }
        let (revision, devices) = shared.hub.device_list();
        let sees_all = grant.devices.is_none();
        let granted = (!sees_all).then(Vec::new);
        *self = Self { revision: Some(revision), hides_groups, granted, ..Self::default() };
        if sees_all && view.is_all() {
            (self.devices, self.matching) = (devices.len(), devices.len());
            self.first = devices.iter().take(MOST_ROWS).cloned().collect();
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
                        self.first.push(Arc::clone(device));
                    }
                }
            }
            yield_now().await;
        }
    }

    /// The number of clients of the devices that the viewer may see.
    fn clients(&self, shared: &Shared) -> usize {
        let count = |devices: &Vec<Arc<Device>>| devices.iter().map(|device| device.client_count()).sum();
        self.granted.as_ref().map_or_else(|| shared.hub.client_count(), count)
    }
}

/// Totals of the server.
#[derive(Serialize)]
struct Server {
    /// The version of the server.
    version: &'static str,
    /// The start time in seconds since 1970.
    started: f64,
    /// Whether there is a journal.
    journal: bool,
    /// Registered devices that the viewer may see.
    devices: usize,
    /// Clients of these devices.
    clients: usize,
    /// Clients that wait for a device that the viewer may see.
    waiting: usize,
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
}

impl Server {
    fn of(shared: &Shared, grant: &Grant, selection: &Selection) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            started: shared.started,
            journal: shared.relay.journal().is_some(),
            devices: selection.devices,
            clients: selection.clients(shared),
            waiting: waiting(shared, grant),
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
        }
    }
}

/// The number of clients that wait for a device that the viewer may see.
fn waiting(shared: &Shared, grant: &Grant) -> usize {
    if grant.devices.is_none() {
        return shared.hub.waiting_count();
    }
    shared.hub.awaited(grant, usize::MAX).iter().map(|device| device.clients).sum()
}

/// A device in the event.
#[derive(Serialize)]
struct DeviceRow<'a> {
    /// The device id.
    device_id: &'a str,
    /// The group.
    group_name: &'a str,
    /// The owner; empty if it is not known.
    owner: &'a str,
    /// The name; empty if it is not known.
    name: &'a str,
    /// The adb port; 0 if it is not known.
    adb_port: u16,
    /// Whether the device has a web server of its own.
    has_files: bool,
    /// The time at which the device connected, in seconds since 1970.
    since: f64,
    /// The number of clients.
    clients: usize,
    /// Forwards to the device.
    to_device: u64,
    /// Forwards to its clients.
    to_client: u64,
}

impl<'a> DeviceRow<'a> {
    fn of(shared: &Shared, device: &'a Device) -> Self {
        let metadata = device.metadata();
        let (to_device, to_client) = Traffic::read(&device.traffic);
        Self {
            device_id: device.id.as_str(),
            group_name: shared.group_of(device),
            owner: &metadata.owner,
            name: &metadata.name,
            adb_port: metadata.adb_port,
            has_files: device.port.is_some(),
            since: since(&device.peer),
            clients: device.client_count(),
            to_device,
            to_client,
        }
    }
}

/// A device in the event that clients wait for.
#[derive(Serialize)]
struct AwaitedRow {
    /// The device id.
    device_id: String,
    /// The number of clients.
    clients: usize,
    /// The time at which the first of them connected, in seconds since 1970.
    since: f64,
}

/// The devices that clients wait for, as far as the viewer may see them, up to the maximum.
fn awaited(shared: &Shared, grant: &Grant) -> Vec<AwaitedRow> {
    let row = |Awaited { id, clients, since }: Awaited| AwaitedRow {
        device_id: id.as_str().to_owned(),
        clients,
        since: unix(since),
    };
    shared.hub.awaited(grant, MOST_AWAITED).into_iter().map(row).collect()
}

/// Serialises a value behind the text. Serde cannot fail here: the keys are strings, and a vector takes all bytes.
fn append(text: &mut Vec<u8>, value: &impl Serialize) {
    let _infallible = serde_json::to_writer(text, value);
}
