//! The clients that wait for a device to register.

use std::collections::HashMap;
use std::sync::Arc;

use super::outbox::Outbox;
use super::peer::Peer;
use crate::protocol::DeviceId;

/// A client that waits.
#[derive(Debug, Clone)]
pub struct Waiter {
    /// Facts about its connection.
    pub peer: Arc<Peer>,
    /// Queue of messages to it.
    pub outbox: Arc<Outbox>,
}

/// The clients that wait, by device id.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_id: HashMap<DeviceId, Vec<Waiter>>,
    len: usize,
}

impl Waiting {
    /// Returns the number of clients.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a client, unless it waits for this device already.
    pub(super) fn add(&mut self, id: &DeviceId, waiter: &Waiter) {
        let waiters = self.by_id.entry(id.clone()).or_default();
        if !waiters.iter().any(|other| Arc::ptr_eq(&other.outbox, &waiter.outbox)) {
            waiters.push(waiter.clone());
            self.len += 1;
        }
    }

    /// Removes a client.
    pub(super) fn remove(&mut self, id: &DeviceId, waiter: &Arc<Outbox>) {
        let Some(waiters) = self.by_id.get_mut(id) else { return };
        let before = waiters.len();
        waiters.retain(|other| !Arc::ptr_eq(&other.outbox, waiter));
        self.len -= before - waiters.len();
        if waiters.is_empty() {
            self.by_id.remove(id);
        }
    }

    /// Removes the clients that wait for this device, and returns them.
    pub(super) fn take(&mut self, id: &DeviceId) -> Vec<Waiter> {
        let waiters = self.by_id.remove(id).unwrap_or_default();
        self.len -= waiters.len();
        waiters
    }

    /// Returns all clients, in no order.
    pub(super) fn all(&self) -> Vec<(DeviceId, Waiter)> {
        let of_id = |(id, waiters): (&DeviceId, &Vec<Waiter>)| {
            waiters.iter().map(|waiter| (id.clone(), waiter.clone())).collect::<Vec<_>>()
        };
        self.by_id.iter().flat_map(of_id).collect()
    }
}
