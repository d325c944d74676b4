//! The books on forwards: what was accepted, and how each of them ended. Only counts; says nothing to anybody.
//!
//! At rest `accepted = delivered + refused + gone + dropped` (docs/protocol.md 2.3: nothing is lost in silence).

use crate::sync::AtomicU64;
use crate::sync::Ordering::Relaxed;

/// One server's counters, from its start.
#[derive(Debug, Default)]
pub struct Ledger {
    accepted: AtomicU64,
    delivered: AtomicU64,
    refused: AtomicU64,
    gone: AtomicU64,
    dropped: AtomicU64,
}

/// A reading of a [`Ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LedgerReading {
    /// Well-formed forwards of peers that were entitled to send them.
    pub accepted: u64,
    /// Written to the receiver's connection.
    pub delivered: u64,
    /// Answered with an error to the sender.
    pub refused: u64,
    /// Their receiver was gone: the sender was told so, or went itself.
    pub gone: u64,
    /// Dropped by a fault that somebody armed.
    pub dropped: u64,
}

impl LedgerReading {
    /// Whether every accepted forward has come to one of its ends.
    pub fn balances(&self) -> bool {
        self.accepted == self.delivered + self.refused + self.gone + self.dropped
    }
}

impl Ledger {
    /// A forward was accepted.
    pub fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// That many forwards were written to their receiver.
    pub fn count_delivered(&self, forwards: u64) {
        self.delivered.fetch_add(forwards, Relaxed);
    }

    /// A forward was answered with an error.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// The receiver of that many forwards was gone before they were written.
    pub fn count_gone(&self, forwards: u64) {
        self.gone.fetch_add(forwards, Relaxed);
    }

    /// A fault dropped a forward.
    pub fn count_dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    /// The counters now.
    pub fn read(&self) -> LedgerReading {
        // The ends before the beginnings: a reading taken under load never shows more ends than beginnings.
        let ends = [&self.delivered, &self.refused, &self.gone, &self.dropped].map(|counter| counter.load(Relaxed));
        let [delivered, refused, gone, dropped] = ends;
        LedgerReading { accepted: self.accepted.load(Relaxed), delivered, refused, gone, dropped }
    }
}
