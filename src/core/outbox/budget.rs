//! The bounds of all outboxes of a server, and the bytes that outboxes may borrow beyond their own.
//!
//! A device is never paused for its clients, so a client that reads more slowly than its device sends needs memory. Up to
//! its own bytes it may take its time. Beyond, it borrows from the budget of the server as long as it makes progress; its
//! driver watches that. When the budget is spent, the borrower with the oldest unsent message is closed
//! (docs/protocol.md 4.3.13).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Memory that a queued message takes beside its text, in bytes. Without it, a flood of short messages would take a
/// multiple of the bound.
pub const MESSAGE_OVERHEAD: usize = 128;

/// Bounds of outboxes. A number of messages is no bound (docs/protocol.md 2.7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Bytes of an outbox, [`MESSAGE_OVERHEAD`] included, above which it borrows.
    pub bytes: usize,
    /// Bytes that all outboxes together may borrow.
    pub budget: usize,
    /// Bytes of clients' forwards in a device's outbox from which on its clients wait.
    pub high_water: usize,
    /// Bytes at which they go on.
    pub low_water: usize,
    /// Bytes of one client's queued forwards from which on it waits.
    pub window_bytes: usize,
    /// Number of one client's queued forwards from which on it waits.
    pub window_messages: usize,
}

/// Order in which borrowers are closed, the least first: by the time of the first message, then by the bytes that are
/// borrowed. A first message that is no forward has no time, and comes last.
pub(super) type Precedence = (bool, Option<Instant>, Reverse<usize>);

/// An outbox that borrows from a [`Budget`].
pub(super) trait Borrower: Send + Sync {
    /// Returns the order in which borrowers are closed; `None` if it borrows nothing. The budget forgets it then.
    fn borrows(&self) -> Option<Precedence>;

    /// Closes it as a slow consumer, and returns all that it has borrowed.
    fn close_slow(&self);
}

/// The bounds of outboxes, and the borrowed bytes of one server.
pub struct Budget {
    pub(super) bounds: OutboxBounds,
    loans: Arc<Loans>,
}

/// The bytes that the outboxes of one server have borrowed, also those with other bounds.
struct Loans {
    /// Bytes that all outboxes together may borrow.
    most: AtomicUsize,
    borrowed: AtomicUsize,
    /// Outboxes of clients that borrow, and some that did, by their addresses.
    borrowers: Mutex<BTreeMap<usize, Weak<dyn Borrower>>>,
}

impl Budget {
    /// Creates the budget of a server.
    pub fn new(bounds: OutboxBounds) -> Arc<Self> {
        let (borrowed, borrowers) = (AtomicUsize::new(0), Mutex::default());
        let loans = Loans { most: AtomicUsize::new(bounds.budget), borrowed, borrowers };
        Arc::new(Self { bounds, loans: Arc::new(loans) })
    }

    /// Creates a budget with other bounds for new outboxes of the same server. `bounds.budget` is also that of the
    /// outboxes that there are, from [`Self::take_effect`] on.
    #[must_use]
    pub fn with_bounds(&self, bounds: OutboxBounds) -> Arc<Self> {
        Arc::new(Self { bounds, loans: Arc::clone(&self.loans) })
    }

    /// Sets the bytes that all outboxes of the server may borrow, and closes borrowers until that is kept.
    pub fn take_effect(&self) {
        self.loans.most.store(self.bounds.budget, Ordering::Release);
        self.loans.enforce();
    }

    /// Returns the bytes that are borrowed now.
    pub fn borrowed(&self) -> usize {
        self.loans.borrowed.load(Ordering::Acquire)
    }

    /// Changes the account by what an outbox has borrowed before and borrows now.
    pub(super) fn borrow(&self, before: usize, now: usize) {
        if now > before {
            self.loans.borrowed.fetch_add(now - before, Ordering::AcqRel);
        } else {
            self.loans.borrowed.fetch_sub(before - now, Ordering::AcqRel);
        }
    }

    /// Notes that the outbox of a client borrows. Then closes borrowers, the one with the oldest unsent message first,
    /// until the budget is kept.
    pub(super) fn enforce<B: Borrower + 'static>(&self, outbox: &Arc<B>) {
        let borrower: Weak<dyn Borrower> = Arc::<B>::downgrade(outbox);
        self.loans.borrowers.lock().insert(Arc::as_ptr(outbox).addr(), borrower);
        self.loans.enforce();
    }
}

impl Loans {
    /// Closes borrowers, the one with the oldest unsent message first, until the budget is kept.
    fn enforce(&self) {
        while self.borrowed.load(Ordering::Acquire) > self.most.load(Ordering::Acquire) {
            let oldest = {
                let mut borrowers = self.borrowers.lock();
                let mut found = Vec::with_capacity(borrowers.len());
                borrowers.retain(|_, outbox| {
                    let Some(outbox) = outbox.upgrade() else { return false };
                    let borrows = outbox.borrows();
                    found.extend(borrows.map(|borrows| (borrows, outbox)));
                    borrows.is_some()
                });
                found.into_iter().min_by_key(|(borrows, _)| *borrows).map(|(_, outbox)| outbox)
            };
            let Some(oldest) = oldest else { return };
            oldest.close_slow();
        }
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let most = self.loans.most.load(Ordering::Acquire);
        write!(f, "Budget({} of {most} borrowed)", self.borrowed())
    }
}
