//! Observers of the hub: a log of peers that come and go, and a counter that waiters wait on.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::core::hub::{Client, Device, Observer};
use crate::core::peer::Peer;
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;

/// A counter that increases with each change in the hub or the journal.
///
/// To wait for a condition without missing a change: read the count, check the condition, then wait for the count to
/// move.
#[derive(Debug, Default)]
pub struct Changes {
    /// The number of changes so far.
    count: Mutex<u64>,
    /// Notified after each change.
    moved: Condvar,
}

impl Changes {
    /// Returns the current count.
    pub fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Blocks the thread until the count differs from `seen` or the timeout expires. Returns the count.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let mut count = self.count.lock();
        self.moved.wait_while_for(&mut count, |count| *count == seen, timeout);
        *count
    }

    /// Increases the count and wakes all waiters.
    pub fn mark(&self) {
        *self.count.lock() += 1;
        self.moved.notify_all();
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
    /// Gets each event afterwards.
    pub(super) next: Arc<dyn Observer>,
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
        self.changes.mark();
        self.next.device_registered(device);
    }

    fn device_left(&self, device: &Device) {
        let (id, peer) = (device.id.as_str(), &*device.peer);
        let duration = time_of(peer);
        tracing::info!(event = "device_left", device_id = id, peer = %peer, duration, "device {} left", Quoted(id));
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
        self.changes.mark();
        self.next.client_waiting(id, client);
    }

    fn client_stopped_waiting(&self, id: &DeviceId, client: &Peer) {
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
        self.changes.mark();
        self.next.client_left(device, client);
    }
}
