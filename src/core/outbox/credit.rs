//! Credit: the share of a client in its device's outbox, and the clients that wait for room there (backpressure,
//! docs/protocol.md 2.7.1).
//!
//! A queued forward of a client holds credit of its sender, until the transport of the device takes it or it is dropped.

use std::sync::Arc;
use std::task::Waker;

use crate::sync::{AtomicU64, Ordering};

/// Bits of a [`Share`] that count bytes. A message to a device has fewer than 2^30 of them.
const BYTE_BITS: u32 = 40;
/// Flag of a [`Share`]: its client waits for room.
const WAITS: u64 = 1 << 63;

/// Forwards of one client that are queued for its device: their number and their bytes, in one atomic.
#[derive(Debug, Default)]
pub struct Share(AtomicU64);

/// Value of a [`Share`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Bytes of the queued forwards.
    pub bytes: usize,
    /// Number of the queued forwards.
    pub messages: usize,
    /// Whether the client waits for room.
    pub(super) waits: bool,
}

impl Queued {
    #[allow(clippy::cast_possible_truncation, reason = "40 and 23 bits fit a usize of 64 bits")]
    fn of(packed: u64) -> Self {
        Self {
            bytes: (packed & ((1 << BYTE_BITS) - 1)) as usize,
            messages: ((packed & !WAITS) >> BYTE_BITS) as usize,
            waits: packed & WAITS != 0,
        }
    }
}

impl Share {
    /// Returns the forwards that are queued now.
    pub fn queued(&self) -> Queued {
        Queued::of(self.0.load(Ordering::Acquire))
    }

    /// Takes credit for one forward.
    pub(super) fn take(&self, bytes: usize) {
        self.0.fetch_add((1 << BYTE_BITS) | bytes as u64, Ordering::AcqRel);
    }

    /// Returns the credit of one forward. Returns the rest.
    pub(super) fn give_back(&self, bytes: usize) -> Queued {
        let one = (1 << BYTE_BITS) | bytes as u64;
        Queued::of(self.0.fetch_sub(one, Ordering::AcqRel) - one)
    }

    /// Marks whether the client waits. Called under the lock of the device's outbox.
    fn set_waits(&self, waits: bool) {
        if waits {
            self.0.fetch_or(WAITS, Ordering::AcqRel);
        } else {
            self.0.fetch_and(!WAITS, Ordering::AcqRel);
        }
    }
}

/// The clients that wait for room in one outbox, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<(Arc<Share>, Option<Waker>)>);

impl Waiters {
    /// Registers a client, or gives the one that is registered a new waker. It keeps its place.
    pub(super) fn register(&mut self, share: &Arc<Share>, waker: &Waker) {
        if let Some((_, old)) = self.0.iter_mut().find(|(other, _)| Arc::ptr_eq(other, share)) {
            *old = Some(waker.clone());
            return;
        }
        share.set_waits(true);
        self.0.push((Arc::clone(share), Some(waker.clone())));
    }

    pub(super) fn remove(&mut self, share: &Arc<Share>) {
        share.set_waits(false);
        self.0.retain(|(other, _)| !Arc::ptr_eq(other, share));
    }

    /// Wakes all clients, in their order.
    pub(super) fn wake_all(&mut self) {
        for (_, waker) in &mut self.0 {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }

    /// Wakes one client.
    pub(super) fn wake(&mut self, share: &Arc<Share>) {
        let found = self.0.iter_mut().find(|(other, _)| Arc::ptr_eq(other, share));
        if let Some(waker) = found.and_then(|(_, waker)| waker.take()) {
            waker.wake();
        }
    }

    /// Returns the number of clients that wait.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
