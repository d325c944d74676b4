//! The queue of one outbox.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::budget::MESSAGE_OVERHEAD;
use super::credit::Share;
use crate::protocol::{ClientId, Text};

/// A queued message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) text: Text,
    pub(super) kind: Kind,
    pub(super) account: Account,
}

/// Kind of a queued message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Message of the server.
    Server,
    /// `client_disconnected` for this client.
    Left(ClientId),
    /// Forward that the ledger counts, with the time at which it was queued.
    Forward(Instant),
    /// Further copy of a forward, which the ledger does not count.
    Copy,
}

/// Account on which the bytes of a message are.
#[derive(Debug)]
pub(super) enum Account {
    /// Of the outbox, which borrows above its bound.
    Outbox,
    /// Of its sender, whose credit it holds.
    Sender(Arc<Share>),
    /// None: a fault has held the message, and has a bound of its own.
    Free,
}

impl Kind {
    /// Returns whether the ledger counts it as a forward.
    pub(super) fn is_forward(self) -> bool {
        matches!(self, Self::Forward(_))
    }
}

/// Messages in the order in which they were pushed.
#[derive(Debug)]
pub(super) struct Queue {
    messages: VecDeque<Message>,
    /// Bytes on the account of the outbox.
    pub(super) own_bytes: usize,
    /// Bytes on the accounts of senders.
    pub(super) shared_bytes: usize,
    /// Time at which the forward that was taken last was queued.
    pub(super) taken_since: Option<Instant>,
    /// Clients whose `client_disconnected` is queued.
    left: BTreeSet<ClientId>,
}

impl Default for Queue {
    /// Creates an empty queue with room for one message: a device that registers and rests is sent only its config.
    fn default() -> Self {
        Self {
            messages: VecDeque::with_capacity(1),
            own_bytes: 0,
            shared_bytes: 0,
            taken_since: None,
            left: BTreeSet::new(),
        }
    }
}

impl Queue {
    #[inline]
    pub(super) fn push(&mut self, message: Message) {
        match message.account {
            Account::Outbox => self.own_bytes += message.text.len() + MESSAGE_OVERHEAD,
            Account::Sender(_) => self.shared_bytes += message.text.len(),
            Account::Free => {}
        }
        if let Kind::Left(id) = message.kind {
            self.left.insert(id);
        }
        self.messages.push_back(message);
    }

    #[inline(always)]
    #[allow(clippy::inline_always, reason = "each message moves through it")]
    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        match message.account {
            Account::Outbox => self.own_bytes -= message.text.len() + MESSAGE_OVERHEAD,
            Account::Sender(_) => self.shared_bytes -= message.text.len(),
            Account::Free => {}
        }
        match message.kind {
            Kind::Forward(at) => self.taken_since = Some(at),
            Kind::Left(id) => {
                self.left.remove(&id);
            }
            Kind::Server | Kind::Copy => {}
        }
        Some(message)
    }

    /// Returns whether a `client_disconnected` for this client is queued.
    pub(super) fn has_left(&self, id: ClientId) -> bool {
        self.left.contains(&id)
    }

    /// Returns the number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns the time of the first message, if it is a forward.
    pub(super) fn oldest(&self) -> Option<Instant> {
        match self.messages.front()?.kind {
            Kind::Forward(at) => Some(at),
            _ => None,
        }
    }
}
