//! The accounts of an outbox: credit of senders, and bytes that it borrows from the budget.

use std::cmp::Reverse;
use std::time::Instant;

use super::budget::{Borrower, Precedence};
use super::queue::{Account, Kind, Message};
use super::{Outbox, State};
use crate::sync::Ordering;

impl Borrower for Outbox {
    fn borrows(&self) -> Option<Precedence> {
        let state = self.state.lock();
        let borrowed = self.borrowed(state.queue.own_bytes);
        let oldest = state.queue.oldest();
        (borrowed > 0).then_some((oldest.is_none(), oldest, Reverse(borrowed)))
    }

    fn close_slow(&self) {
        Self::close_slow(self);
    }
}

impl Outbox {
    /// Adds a message to the queue, and to the accounts. The journal gets it if it is one of the server.
    #[inline]
    pub(super) fn add(&self, state: &mut State, message: Message) {
        if let (Some(peer_journal), Kind::Server | Kind::Left(_)) = (self.peer_journal(), message.kind) {
            peer_journal.sent(&message.text);
        }
        if let Account::Sender(share) = &message.account {
            share.take(message.text.len());
        }
        let before = state.queue.own_bytes;
        state.queue.push(message);
        if state.queue.shared_bytes >= self.budget.bounds.high_water {
            self.congested.store(true, Ordering::Release);
        }
        self.settle(before, state.queue.own_bytes);
    }

    /// Takes the first message from the queue, and from the accounts. Its sender gets its credit back.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each message moves through it")]
    pub(super) fn take(&self, state: &mut State) -> Option<Message> {
        let before = state.queue.own_bytes;
        let message = state.queue.pop()?;
        if let Account::Sender(share) = &message.account {
            self.give_back(share, message.text.len(), state.queue.shared_bytes, &mut state.waiters);
        }
        self.settle(before, state.queue.own_bytes);
        Some(message)
    }

    /// Returns the time at which the forward that was taken last was queued.
    pub fn taken_since(&self) -> Option<Instant> {
        self.state.lock().queue.taken_since
    }

    /// Discards the queue. Returns how many of the messages were forwards.
    pub(super) fn discard(&self, state: &mut State) -> u64 {
        let forwards = std::iter::from_fn(|| self.take(state)).filter(|message| message.kind.is_forward()).count();
        state.waiters.wake_all();
        forwards as u64
    }

    /// Settles with the budget.
    #[inline]
    fn settle(&self, before: usize, now: usize) {
        if before.max(now) > self.budget.bounds.bytes {
            self.budget.borrow(self.borrowed(before), self.borrowed(now));
        }
    }

    /// Returns how many of these bytes of its own are borrowed.
    pub(super) fn borrowed(&self, own_bytes: usize) -> usize {
        own_bytes.saturating_sub(self.budget.bounds.bytes)
    }

    /// Returns whether it borrows, and the time of its first message if that is a forward.
    pub fn pressure(&self) -> (bool, Option<Instant>) {
        let state = self.state.lock();
        (self.borrowed(state.queue.own_bytes) > 0, state.queue.oldest())
    }
}
