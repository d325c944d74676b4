//! The ledger of forwards: how many were accepted, and how each of them ended.
//!
//! At rest, `accepted = delivered + refused + gone + dropped`: no forward is lost silently (docs/protocol.md 2.3).

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// Counters of one server, since its start.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: AtomicU64,
    delivered: AtomicU64,
    refused: AtomicU64,
    gone: AtomicU64,
    dropped: AtomicU64,
}

/// Values of a [`Ledger`] at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerReading {
    /// Well-formed forwards of registered devices and connected clients.
    pub accepted: u64,
    /// Forwards that were written to the receiver's connection.
    pub delivered: u64,
    /// Forwards that were answered with an error to their sender.
    pub refused: u64,
    /// Forwards whose receiver had left. The sender was told so, or has left itself.
    pub gone: u64,
    /// Forwards that a fault dropped.
    pub dropped: u64,
}

impl LedgerReading {
    /// Returns whether every accepted forward has ended.
    pub fn balances(&self) -> bool {
        self.accepted == self.delivered + self.refused + self.gone + self.dropped
    }
}

impl Ledger {
    /// Counts an accepted forward.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// Counts forwards that were written to their receiver. Returns how many there were before.
    pub fn count_delivered(&self, forwards: u64) -> u64 {
        self.delivered.fetch_add(forwards, Relaxed)
    }

    /// Counts a forward that was answered with an error.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Counts forwards whose receiver left before they were written.
    pub fn count_gone(&self, forwards: u64) {
        self.gone.fetch_add(forwards, Relaxed);
    }

    /// Counts a forward that a fault dropped.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// Returns the counters now.
    pub fn read(&self) -> LedgerReading {
        // The ends are read before `accepted`, so that a reading under load never shows more ends than accepted
        // forwards.
        let ends = [&self.delivered, &self.refused, &self.gone, &self.dropped].map(|counter| counter.load(Relaxed));
        let [delivered, refused, gone, dropped] = ends;
        LedgerReading { accepted: self.accepted.load(Relaxed), delivered, refused, gone, dropped }
    }
}
