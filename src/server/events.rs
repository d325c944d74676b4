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
        tracing::info!("device {} registered from {}", Quoted(device.id.as_str()), device.peer);
        self.changes.mark();
        self.next.device_registered(device);
    }

    fn device_left(&self, device: &Device) {
        tracing::info!("device {} left", Quoted(device.id.as_str()));
        self.changes.mark();
        self.next.device_left(device);
    }

    fn client_connected(&self, device: &Device, client: &Client) {
        let id = Quoted(device.id.as_str());
        tracing::info!("client {} of device {id} connected from {}", client.id, client.peer);
        self.changes.mark();
        self.next.client_connected(device, client);
    }

    fn client_waiting(&self, id: &DeviceId, client: &Peer) {
        tracing::info!("a client from {client} waits for device {}", Quoted(id.as_str()));
        self.changes.mark();
        self.next.client_waiting(id, client);
    }

    fn client_stopped_waiting(&self, id: &DeviceId, client: &Peer) {
        self.changes.mark();
        self.next.client_stopped_waiting(id, client);
    }

    fn client_left(&self, device: &Device, client: &Client) {
        tracing::info!("client {} of device {} left", client.id, Quoted(device.id.as_str()));
        self.changes.mark();
        self.next.client_left(device, client);
    }
}
