//! The queue of one outbox.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::budget::MESSAGE_OVERHEAD;
use super::credit::Share;
use crate::protocol::{ClientId, Text};

/// A queued message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) text: Text,
    /// Credit that it holds.
    pub(super) share: Option<Arc<Share>>,
    pub(super) kind: Kind,
}

/// Kind of a queued message, which decides its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Message of the server. It never waits, and counts towards the bytes of the outbox.
    Server,
    /// `client_disconnected` for this client, otherwise as [`Kind::Server`].
    Left(ClientId),
    /// Forward that the ledger counts, with the time at which it was queued. It holds credit, or counts towards the bytes.
    Forward(Instant),
    /// Forward that a fault has held: on no account but the ledger's.
    Released(Instant),
    /// Second copy of a forward: on no account.
    Copy,
}

impl Kind {
    /// Returns whether the ledger counts it as a forward.
    pub(super) fn is_forward(self) -> bool {
        matches!(self, Self::Forward(_) | Self::Released(_))
    }
}

impl Message {
    /// Returns its bytes on the account of the outbox.
    fn own_bytes(&self) -> usize {
        match self.kind {
            Kind::Forward(_) if self.share.is_some() => 0,
            Kind::Forward(_) | Kind::Server | Kind::Left(_) => self.text.len() + MESSAGE_OVERHEAD,
            Kind::Released(_) | Kind::Copy => 0,
        }
    }

    /// Returns its bytes on the account of its sender.
    pub(super) fn shared_bytes(&self) -> usize {
        if self.share.is_some() { self.text.len() } else { 0 }
    }
}

/// Messages in the order in which they were pushed.
#[derive(Debug)]
pub(super) struct Queue {
    messages: VecDeque<Message>,
    /// Bytes of the outbox itself.
    pub(super) own_bytes: usize,
    /// Bytes of forwards that hold credit.
    pub(super) shared_bytes: usize,
    /// Clients whose `client_disconnected` is queued.
    #[allow(clippy::box_collection, reason = "an outbox without them, which is any at rest, stays small")]
    left: Option<Box<HashSet<ClientId>>>,
}

impl Default for Queue {
    /// Creates an empty queue with room for one message: a device that registers and rests is sent only its config.
    fn default() -> Self {
        Self { messages: VecDeque::with_capacity(1), own_bytes: 0, shared_bytes: 0, left: None }
    }
}

impl Queue {
    pub(super) fn push(&mut self, message: Message) {
        self.own_bytes += message.own_bytes();
        self.shared_bytes += message.shared_bytes();
        if let Kind::Left(id) = message.kind {
            self.left.get_or_insert_default().insert(id);
        }
        self.messages.push_back(message);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.own_bytes -= message.own_bytes();
        self.shared_bytes -= message.shared_bytes();
        if let (Kind::Left(id), Some(left)) = (message.kind, &mut self.left) {
            left.remove(&id);
            if left.is_empty() {
                self.left = None;
            }
        }
        Some(message)
    }

    /// Returns whether a `client_disconnected` for this client is queued.
    pub(super) fn has_left(&self, id: ClientId) -> bool {
        self.left.as_ref().is_some_and(|left| left.contains(&id))
    }

    /// Returns the number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Returns the time of the first message, if it is a forward.
    pub(super) fn oldest(&self) -> Option<Instant> {
        match self.messages.front()?.kind {
            Kind::Forward(at) | Kind::Released(at) => Some(at),
            _ => None,
        }
    }
}
