//! Credit: the share of a client in its device's outbox, and the clients that wait for room there (backpressure,
//! docs/protocol.md 2.7.1).
//!
//! A queued forward of a client holds credit of its sender, until the transport of the device takes it or it is dropped.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::sync::{AtomicU64, Ordering};

/// Bits of a [`Share`] that count bytes. A message to a device has fewer than 2^30 of them.
const BYTE_BITS: u32 = 40;

/// Forwards of one client that are queued for its device. It changes under the lock of the device's outbox, and is read
/// without.
#[derive(Debug, Default)]
pub struct Share {
    /// Their number and their bytes, in one atomic.
    queued: AtomicU64,
    /// The client's place in the line; 0 if it does not wait.
    place: AtomicU64,
}

/// Forwards of a [`Share`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Bytes of the queued forwards.
    pub bytes: usize,
    /// Number of the queued forwards.
    pub messages: usize,
}

impl Share {
    /// Returns the forwards that are queued now.
    #[allow(clippy::cast_possible_truncation, reason = "40 and 24 bits fit a usize of 64 bits")]
    pub fn queued(&self) -> Queued {
        let queued = self.queued.load(Ordering::Acquire);
        Queued { bytes: (queued & ((1 << BYTE_BITS) - 1)) as usize, messages: (queued >> BYTE_BITS) as usize }
    }

    /// Takes credit for one forward.
    pub(super) fn take(&self, bytes: usize) {
        self.set(|queued| queued + ((1 << BYTE_BITS) | bytes as u64));
    }

    /// Returns the credit of one forward.
    pub(super) fn give_back(&self, bytes: usize) {
        self.set(|queued| queued - ((1 << BYTE_BITS) | bytes as u64));
    }

    /// The lock of the outbox lets one thread write, so that a load and a store are enough.
    fn set(&self, change: impl FnOnce(u64) -> u64) {
        self.queued.store(change(self.queued.load(Ordering::Relaxed)), Ordering::Release);
    }
}

/// The clients that wait for room in one outbox, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    /// The waker of each, by its place; `None` once it was woken.
    by_place: BTreeMap<u64, Option<Waker>>,
    last_place: u64,
}

impl Waiters {
    /// Registers a client, or gives the one that is registered a new waker. It keeps its place.
    pub(super) fn register(&mut self, share: &Share, waker: &Waker) {
        if share.place.load(Ordering::Relaxed) == 0 {
            self.last_place += 1;
            share.place.store(self.last_place, Ordering::Relaxed);
        }
        self.by_place.insert(share.place.load(Ordering::Relaxed), Some(waker.clone()));
    }

    /// Removes a client.
    pub(super) fn remove(&mut self, share: &Share) {
        self.by_place.remove(&share.place.swap(0, Ordering::Relaxed));
    }

    /// Wakes all clients, in their order.
    pub(super) fn wake_all(&mut self) {
        self.by_place.values_mut().filter_map(Option::take).for_each(Waker::wake);
    }

    /// Wakes one client, if it waits.
    pub(super) fn wake(&mut self, share: &Share) {
        if let Some(waker) = self.by_place.get_mut(&share.place.load(Ordering::Relaxed)).and_then(Option::take) {
            waker.wake();
        }
    }

    /// Returns the number of clients.
    pub(super) fn len(&self) -> usize {
        self.by_place.len()
    }
}
