//! The clients that wait for a device to register.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

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

/// A device that clients wait for.
#[derive(Debug, Clone)]
pub struct Awaited {
    /// Its id.
    pub id: DeviceId,
    /// Number of clients that wait for it.
    pub clients: usize,
    /// Time when the connection of the first of them was accepted.
    pub since: SystemTime,
    /// Those that began to wait first, at most [`MOST_NAMED`].
    pub first: Vec<Arc<Peer>>,
}

/// The maximum number of waiting clients of a device in [`Awaited::first`].
pub const MOST_NAMED: usize = 8;

/// The clients that wait, by device id.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_id: BTreeMap<DeviceId, Vec<Waiter>>,
    len: usize,
}

impl Waiting {
    /// Returns the number of clients.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a client. Returns false if it waits for this device already.
    pub(super) fn add(&mut self, id: &DeviceId, waiter: &Waiter) -> bool {
        let waiters = self.by_id.entry(id.clone()).or_default();
        if waiters.iter().any(|other| Arc::ptr_eq(&other.outbox, &waiter.outbox)) {
            return false;
        }
        waiters.push(waiter.clone());
        self.len += 1;
        true
    }

    /// Removes a client, and returns it.
    pub(super) fn remove(&mut self, id: &DeviceId, waiter: &Arc<Outbox>) -> Option<Waiter> {
        let waiters = self.by_id.get_mut(id)?;
        let place = waiters.iter().position(|other| Arc::ptr_eq(&other.outbox, waiter))?;
        let removed = waiters.remove(place);
        self.len -= 1;
        if waiters.is_empty() {
            self.by_id.remove(id);
        }
        Some(removed)
    }

    /// Returns the outboxes of the clients that wait for this device.
    pub(super) fn of(&self, id: &DeviceId) -> Vec<Arc<Outbox>> {
        self.by_id.get(id).into_iter().flatten().map(|waiter| Arc::clone(&waiter.outbox)).collect()
    }

    /// Returns the devices that clients wait for, sorted by id, at most `limit`.
    pub(super) fn devices(&self, limit: usize) -> Vec<Awaited> {
        let awaited = |(id, waiters): (&DeviceId, &Vec<Waiter>)| {
            let since = waiters.iter().map(|waiter| waiter.peer.since).min()?;
            let first = waiters.iter().take(MOST_NAMED).map(|waiter| Arc::clone(&waiter.peer)).collect();
            Some(Awaited { id: id.clone(), clients: waiters.len(), since, first })
        };
        self.by_id.iter().take(limit).filter_map(awaited).collect()
    }

    /// Removes the clients that wait for the device with these ids, and returns them.
    pub(super) fn take(&mut self, ids: [Option<&DeviceId>; 2]) -> Vec<Waiter> {
        let waiters: Vec<_> = ids.into_iter().flatten().filter_map(|id| self.by_id.remove(id)).flatten().collect();
        self.len -= waiters.len();
        waiters
    }

    /// Returns all clients, sorted by device id.
    pub(super) fn all(&self) -> Vec<(DeviceId, Waiter)> {
        let of_id = |(id, waiters): (&DeviceId, &Vec<Waiter>)| {
            waiters.iter().map(|waiter| (id.clone(), waiter.clone())).collect::<Vec<_>>()
        };
        self.by_id.iter().flat_map(of_id).collect()
    }
}
