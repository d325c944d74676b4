//! The bounded queue of one outbox.

use std::collections::VecDeque;

use crate::protocol::Text;

/// Bounds of an outbox. It closes when either one is exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxBounds {
    /// Greatest number of messages.
    pub messages: usize,
    /// Greatest sum of their lengths, in bytes.
    pub bytes: usize,
}

/// Messages in the order in which they were pushed. The flag says whether the message counts in the ledger as a
/// forward.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<(Text, bool)>,
    bytes: usize,
}

impl Queue {
    /// Returns whether one more message stays within the bounds.
    pub(super) fn has_room(&self, text: &Text, bounds: OutboxBounds) -> bool {
        self.messages.len() < bounds.messages && self.bytes + text.len() <= bounds.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn push(&mut self, text: Text, forward: bool) {
        self.bytes += text.len();
        self.messages.push_back((text, forward));
    }

    pub(super) fn pop(&mut self) -> Option<(Text, bool)> {
        let (text, forward) = self.messages.pop_front()?;
        self.bytes -= text.len();
        Some((text, forward))
    }

    /// Removes all messages. Returns how many of them were forwards.
    pub(super) fn clear(&mut self) -> u64 {
        self.bytes = 0;
        std::mem::take(&mut self.messages).iter().filter(|(_, forward)| *forward).count() as u64
    }
}
