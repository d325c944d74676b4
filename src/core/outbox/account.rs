//! The accounts of an outbox: credit of senders, and bytes that it borrows from the budget.

use std::cmp::Reverse;
use std::time::Instant;

use super::budget::{Borrower, Precedence};
use super::queue::Message;
use super::{Outbox, State};
use crate::sync::Ordering;

impl Borrower for Outbox {
    fn borrows(&self) -> Option<Precedence> {
        let mut state = self.state.lock();
        state.is_borrower = state.queue.own_bytes > self.bounds().bytes;
        let borrowed = state.queue.own_bytes.saturating_sub(self.bounds().bytes);
        let oldest = state.queue.oldest();
        state.is_borrower.then_some((oldest.is_none(), oldest, Reverse(borrowed)))
    }

    fn close_slow(&self) {
        Self::close_slow(self);
    }
}

impl Outbox {
    /// Adds a message to the queue, and to the accounts. Returns whether the outbox borrows.
    #[inline]
    pub(super) fn add(&self, state: &mut State, message: Message) -> bool {
        let before = state.queue.own_bytes;
        if let Some(share) = &message.share {
            share.take(message.text.len());
        }
        state.queue.push(message);
        if state.queue.shared_bytes >= self.bounds().high_water {
            self.congested.store(true, Ordering::Release);
        }
        self.account(before, state.queue.own_bytes)
    }

    /// Takes the first message from the queue, and from the accounts. Its sender gets its credit back.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each message moves through it")]
    pub(super) fn take(&self, state: &mut State) -> Option<Message> {
        let before = state.queue.own_bytes;
        let message = state.queue.pop()?;
        if let Some(share) = &message.share {
            self.give_back(share, message.text.len(), state.queue.shared_bytes, &mut state.waiters);
        }
        self.account(before, state.queue.own_bytes);
        Some(message)
    }

    /// Discards the queue. Returns how many of the messages were forwards.
    pub(super) fn discard(&self, state: &mut State) -> u64 {
        let forwards = std::iter::from_fn(|| self.take(state)).filter(|message| message.kind.is_forward()).count();
        state.waiters.wake_all();
        forwards as u64
    }

    /// Settles with the budget. Returns whether the outbox borrows.
    #[inline]
    fn account(&self, before: usize, now: usize) -> bool {
        let bytes = self.bounds().bytes;
        if before.max(now) > bytes {
            self.budget.borrow(before.saturating_sub(bytes), now.saturating_sub(bytes));
        }
        now > bytes
    }

    /// Returns whether it borrows, and the time of its first message if that is a forward.
    pub fn pressure(&self) -> (bool, Option<Instant>) {
        let state = self.state.lock();
        (state.queue.own_bytes > self.bounds().bytes, state.queue.oldest())
    }
}
