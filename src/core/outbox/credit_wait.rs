//! The wait of a client for room in its device's outbox.
//!
//! Before each text, the client asks [`Outbox::may_queue`]: two atomic loads. Only a client that has to wait takes a
//! lock. It registers, and keeps its place in the line until it goes on or its [`CreditWait`] is dropped.

use std::sync::Arc;
use std::task::{Context, Poll};

use super::Outbox;
use super::credit::{Queued, Share, Waiters};
use crate::sync::Ordering;

/// A client's place in the line for room in its device's outbox. Dropping it leaves the line.
#[derive(Debug)]
pub struct CreditWait {
    outbox: Arc<Outbox>,
    share: Arc<Share>,
}

impl CreditWait {
    /// Prepares to wait. The place in the line is taken by the first [`CreditWait::poll`].
    pub fn new(outbox: &Arc<Outbox>, share: &Arc<Share>) -> Self {
        Self { outbox: Arc::clone(outbox), share: Arc::clone(share) }
    }

    /// Polls whether the client may queue a forward. If not, its task is woken when that may have changed.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.outbox.state.lock();
        // Under the lock, as each return of credit is: so none is missed.
        if self.outbox.may_queue(&self.share) || state.end.is_some() {
            return Poll::Ready(());
        }
        state.waiters.register(&self.share, cx.waker());
        Poll::Pending
    }
}

impl Drop for CreditWait {
    fn drop(&mut self) {
        self.outbox.state.lock().waiters.remove(&self.share);
    }
}

impl Outbox {
    /// Returns whether a client with this share may queue one more forward.
    ///
    /// Its queued forwards must be below its window, and the outbox must not be above high water, from which on it is
    /// congested until low water. A client with nothing queued may always queue one, so that a flood of others starves
    /// no client.
    #[inline]
    pub fn may_queue(&self, share: &Share) -> bool {
        let Queued { bytes, messages } = share.queued();
        let bounds = &self.budget.bounds;
        messages == 0
            || (bytes < bounds.window_bytes
                && messages < bounds.window_messages
                && !self.congested.load(Ordering::Acquire))
    }

    /// Returns the number of clients that wait for room.
    pub fn waiting_clients(&self) -> usize {
        self.state.lock().waiters.len()
    }

    /// Returns credit to its client, and wakes clients that may go on. The caller holds the lock of the outbox.
    #[inline]
    pub(super) fn give_back(&self, share: &Share, bytes: usize, shared_bytes: usize, waiters: &mut Waiters) {
        share.give_back(bytes);
        let (bounds, congested) = (&self.budget.bounds, self.congested.load(Ordering::Relaxed));
        if congested && shared_bytes <= bounds.low_water {
            self.congested.store(false, Ordering::Release);
            waiters.wake_all();
        } else if waiters.len() > 0 {
            // Half of a window at a time: a client that is woken for each message costs a poll for each.
            let rest = share.queued();
            let half_free = rest.bytes <= bounds.window_bytes / 2 && rest.messages <= bounds.window_messages / 2;
            if rest.messages == 0 || (half_free && !congested) {
                waiters.wake(share);
            }
        }
    }
}
