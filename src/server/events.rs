//! Observers of the hub: a log of peers that come and go, and a counter that waiters wait on.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use crate::core::hub::{Client, Device, Observer};
use crate::core::peer::Peer;
use crate::observe::audit::{AuditRecord, Outcome};
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;
use crate::server::audit_log::{AuditLog, of_peer};
use crate::server::feed::Feed;
use crate::server::peer_rows::{ClientRow, DeviceRow, PeerEvent, now};

/// A counter that increases with each change in the hub or the journal.
///
/// To wait for a condition without missing a change: read the count, check the condition, then wait for the count to
/// move.
#[derive(Debug, Default)]
pub struct Changes {
    /// The number of changes so far, and of tasks that wait for one.
    state: Mutex<Counted>,
    /// Notified after each change.
    moved: Condvar,
    /// Notified after each change for which a task waits.
    noticed: Notify,
}

/// The number of changes, and of tasks that wait for one.
#[derive(Debug, Default)]
struct Counted {
    changes: u64,
    tasks: usize,
}

impl Changes {
    /// Returns the current count.
    pub fn count(&self) -> u64 {
        self.state.lock().changes
    }

    /// Blocks the thread until the count differs from `seen` or the timeout expires. Returns the count.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let mut state = self.state.lock();
        self.moved.wait_while_for(&mut state, |state| state.changes == seen, timeout);
        state.changes
    }

    /// Increases the count and wakes all waiters.
    pub fn mark(&self) {
        let has_tasks = {
            let mut state = self.state.lock();
            state.changes += 1;
            state.tasks > 0
        };
        self.moved.notify_all();
        if has_tasks {
            self.noticed.notify_waiters();
        }
    }

    /// Waits in a task until the count differs from `seen`.
    pub(super) async fn moved_from(&self, seen: u64) {
        self.state.lock().tasks += 1;
        let _waits = Waits(self);
        loop {
            let noticed = pin!(self.noticed.notified());
            if self.count() != seen {
                return;
            }
            noticed.await;
        }
    }
}

/// A task that waits for a change.
struct Waits<'a>(&'a Changes);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.state.lock().tasks -= 1;
    }
}

/// The time for which a peer has been connected, in seconds.
fn time_of(peer: &Peer) -> f64 {
    rounded(peer.since.elapsed().unwrap_or_default())
}

/// A time in seconds, in milliseconds' steps, for the log.
pub(super) fn rounded(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

/// Logs each event, counts it and passes it on.
///
/// Ids come from peers, so they are logged quoted and escaped.
pub(super) struct LoggingObserver {
    /// Counts the events.
    pub(super) changes: Arc<Changes>,
    /// The name of this node of a cluster.
    pub(super) node: Option<String>,
    /// Tells streams of the events.
    pub(super) feed: Arc<Feed>,
    /// The audit log, if there is one.
    pub(super) audit: Option<Arc<AuditLog>>,
    /// Gets each event afterwards.
    pub(super) next: Arc<dyn Observer>,
}

impl LoggingObserver {
    /// Adds a peer that now uses a device to the audit log.
    fn audit(&self, peer: &Peer, device: &Device, client: Option<&Client>) {
        let (device_id, client_id) = (Some(device.id.as_str()), client.map(|client| client.id.get()));
        if let Some(audit) = &self.audit {
            audit.add(&AuditRecord { device_id, client_id, ..of_peer(Outcome::Admitted, peer) });
        }
    }
}

impl Observer for LoggingObserver {
    fn device_registered(&self, device: &Device) {
        let (id, peer) = (device.id.as_str(), &*device.peer);
        tracing::info!(
            event = "device_registered",
            device_id = id,
            peer = %peer,
            "device {} registered from {peer}",
            Quoted(id)
        );
        self.audit(peer, device, None);
        let row = || DeviceRow::of(device, self.node.as_deref(), false);
        self.feed.tell(&device.id, || PeerEvent::DeviceRegistered { at: now(), device: row() });
        self.changes.mark();
        self.next.device_registered(device);
    }

    fn device_left(&self, device: &Device) {
        let (id, peer) = (device.id.as_str(), &*device.peer);
        let duration = time_of(peer);
        tracing::info!(event = "device_left", device_id = id, peer = %peer, duration, "device {} left", Quoted(id));
        self.feed.tell(&device.id, || PeerEvent::DeviceLeft { at: now(), device_id: device.id.to_string() });
        self.changes.mark();
        self.next.device_left(device);
    }

    fn client_connected(&self, device: &Device, client: &Client) {
        let (id, peer) = (device.id.as_str(), &*client.peer);
        tracing::info!(
            event = "client_connected",
            device_id = id,
            client_id = client.id.get(),
            peer = %peer,
            "client {} of device {} connected from {peer}",
            client.id,
            Quoted(id)
        );
        self.audit(peer, device, Some(client));
        let row = || ClientRow::of(device, client);
        self.feed.tell(&device.id, || PeerEvent::ClientConnected { at: now(), client: row() });
        self.changes.mark();
        self.next.client_connected(device, client);
    }

    fn client_waiting(&self, id: &DeviceId, client: &Peer) {
        let quoted = Quoted(id.as_str());
        tracing::info!(
            event = "client_waiting",
            device_id = id.as_str(),
            peer = %client,
            "a client from {client} waits for device {quoted}"
        );
        self.feed.tell(id, || PeerEvent::ClientWaiting { at: now(), device_id: id.to_string() });
        self.changes.mark();
        self.next.client_waiting(id, client);
    }

    fn client_stopped_waiting(&self, id: &DeviceId, client: &Peer) {
        self.feed.tell(id, || PeerEvent::ClientStoppedWaiting { at: now(), device_id: id.to_string() });
        self.changes.mark();
        self.next.client_stopped_waiting(id, client);
    }

    fn client_left(&self, device: &Device, client: &Client) {
        let (id, peer) = (device.id.as_str(), &*client.peer);
        tracing::info!(
            event = "client_left",
            device_id = id,
            client_id = client.id.get(),
            peer = %peer,
            duration = time_of(peer),
            "client {} of device {} left",
            client.id,
            Quoted(id)
        );
        self.feed.tell(&device.id, || PeerEvent::ClientLeft {
            at: now(),
            device_id: device.id.to_string(),
            client_id: client.id.get(),
        });
        self.changes.mark();
        self.next.client_left(device, client);
    }
}
