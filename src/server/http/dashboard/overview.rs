//! The event `overview`: totals of the server, and its devices.
//!
//! Viewers without a grant and a search see the same, so that one text serves them all.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::yield_now;

use super::pause_after;
use super::rows::{DeviceRow, awaited};
use super::selection::Selection;
use super::totals::Server;
use super::view::View;
use crate::core::peer::Grant;
use crate::observe::incidents::Incident;
use crate::server::cluster::survey::Standing;
use crate::server::shared::Shared;

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
    /// Incidents of all kinds, and failed calls of hooks.
    incidents: u64,
    /// Whether groups that come from device info are hidden.
    hides_groups: bool,
    /// The state of this node, the devices of all nodes, and the answers of other nodes; `None` without a cluster.
    cluster: Option<(Standing, u64, u64)>,
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
            incidents: Incident::ALL.iter().map(|incident| shared.incidents.of(*incident)).sum::<u64>()
                + shared.hook_failures.count(),
            hides_groups: shared.hooks.filters_device_info(),
            cluster: shared.cluster.as_ref().map(|cluster| {
                let standing = cluster.standing(shared.drain.begun.is_cancelled());
                (standing, cluster.directory_revision(), cluster.survey_revision())
            }),
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
    /// It has each change made before the call, or, unless `is_first`, it is not older than the pause that its length
    /// asks for. So a busy server renders it once in that time, not once for each viewer.
    pub(super) async fn current(&self, shared: &Shared, is_first: bool) -> (Revision, Bytes) {
        let wanted = Revision::of(shared);
        let mut latest = self.latest.lock().await;
        if let Some((revision, at, text)) = &*latest
            && (*revision == wanted || (!is_first && at.elapsed() < pause_after(shared, text.len())))
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
        let server = Server::of(shared, grant, selection.devices, selection.clients(shared));
        let mut text = b"event: overview\ndata: {\"server\":".to_vec();
        append(&mut text, &server);
        text.extend_from_slice(b",\"waiting\":");
        append(&mut text, &awaited(shared, grant));
        text.extend_from_slice(format!(r#","matching":{},"devices":["#, selection.matching).as_bytes());
        let most = shared.settings().limits.http.viewer_bytes;
        for (at, listed) in selection.first.iter().enumerate() {
            let end = text.len();
            if at > 0 {
                text.push(b',');
            }
            append(&mut text, &DeviceRow::of_listed(shared, listed, selection.hides_groups));
            if text.len() > most {
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

/// Serialises a value behind the text. Serde cannot fail here: the keys are strings, and a vector takes all bytes.
fn append(text: &mut Vec<u8>, value: &impl Serialize) {
    let _infallible = serde_json::to_writer(text, value);
}
