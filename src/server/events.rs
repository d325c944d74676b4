//! Observers of the hub: the log of who comes and goes, and a counter for those who wait for somebody.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::core::hub::{Client, Device, Observer};

/// Counts up whenever somebody comes or goes. Take the count, look, and wait for it to move: nothing is missed.
#[derive(Debug, Default)]
pub struct Changes {
    count: Mutex<u64>,
    moved: Condvar,
}

impl Changes {
    /// The count now.
    pub fn count(&self) -> u64 {
        *self.count.lock()
    }

    /// Blocks this thread until the count is no longer `seen`, or `timeout` is over; returns the count then.
    pub fn wait(&self, seen: u64, timeout: Duration) -> u64 {
        let mut count = self.count.lock();
        self.moved.wait_while_for(&mut count, |count| *count == seen, timeout);
        *count
    }

    /// Wakes everybody who waits.
    pub fn mark(&self) {
        *self.count.lock() += 1;
        self.moved.notify_all();
    }
}

/// Logs, counts, and passes on. Ids are logged in quotes and escaped: they are a peer's words.
pub(super) struct LoggingObserver {
    pub(super) changes: Arc<Changes>,
    pub(super) next: Arc<dyn Observer>,
}

impl Observer for LoggingObserver {
    fn device_registered(&self, device: &Device) {
        tracing::info!("device {:?} registered from {}", device.id, device.peer);
        self.changes.mark();
        self.next.device_registered(device);
    }

    fn device_left(&self, device: &Device) {
        tracing::info!("device {:?} left", device.id);
        self.changes.mark();
        self.next.device_left(device);
    }

    fn client_connected(&self, device: &Device, client: &Client) {
        tracing::info!("client {} of device {:?} connected from {}", client.id, device.id, client.peer);
        self.changes.mark();
        self.next.client_connected(device, client);
    }

    fn client_left(&self, device: &Device, client: &Client) {
        tracing::info!("client {} of device {:?} left", client.id, device.id);
        self.changes.mark();
        self.next.client_left(device, client);
    }
}
