//! The numbered messages of a polled connection, kept until the client acknowledges them (docs/protocol.md 5.3.12).
//!
//! Numbers start at 0. A poll with a later `start` acknowledges all messages before it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::outbox::MESSAGE_OVERHEAD;
use crate::observe::ledger::Ledger;
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;

/// The reason why a fetch or a forward failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum PollError {
    /// The connection has ended, and all its messages were fetched.
    Gone,
    /// The client asks for messages that it has acknowledged.
    Acknowledged {
        /// The number of the first message asked for.
        start: u64,
        /// The number of the first message that is kept.
        first: u64,
    },
    /// The session has refused the forward. The connection stays open.
    Refused(Refusal),
    /// The forward found no room within `write_timeout`. It was not accepted.
    Busy,
}

/// The query of a poll.
pub(in crate::server) struct PollQuery {
    /// The number of the first message; all before it are acknowledged. `None` is the first that is kept.
    pub(in crate::server) start: Option<u64>,
    /// The maximum number of messages.
    pub(in crate::server) count: usize,
    /// The time to wait for a message.
    pub(in crate::server) wait: Duration,
}

/// The messages that a client has not acknowledged.
#[derive(Default)]
pub(in crate::server) struct KeptMessages {
    /// The messages, each with whether it is a forward that the ledger does not count yet.
    messages: VecDeque<(Text, bool)>,
    /// The size of the messages in bytes, with [`MESSAGE_OVERHEAD`] for each.
    bytes: usize,
    /// The number of the first message.
    first: u64,
    /// The number of the first message that no answer has contained yet.
    unsent: u64,
}

impl KeptMessages {
    /// Whether no message is kept.
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns whether the bound is not reached. One message may exceed it.
    pub(in crate::server) fn has_room(&self, bytes: usize) -> bool {
        self.bytes < bytes
    }

    /// The number of the first message that no answer has contained yet.
    pub(in crate::server) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// The number of the next message.
    pub(in crate::server) fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// Appends a message. `forward` says whether it carries a forward.
    pub(in crate::server) fn push(&mut self, text: Text, forward: bool) {
        self.bytes += text.len() + MESSAGE_OVERHEAD;
        self.messages.push_back((text, forward));
    }

    /// Removes the device info, which comes before all numbered messages.
    pub(in crate::server) fn pop(&mut self) -> Option<Text> {
        let (text, _) = self.messages.pop_front()?;
        self.bytes -= text.len() + MESSAGE_OVERHEAD;
        Some(text)
    }

    /// The number of the first message that a poll gets. `has_ended` says that no more messages will come.
    pub(in crate::server) fn start_of(&self, query: &PollQuery, has_ended: bool) -> Result<u64, PollError> {
        let start = query.start.unwrap_or(self.first);
        let all_sent = self.unsent >= self.end();
        // An answer may be lost, so a client can repeat `start` until it acknowledges the messages.
        let repeats = query.start.is_some() && start >= self.first;
        if has_ended && (start >= self.end() || (all_sent && !repeats)) {
            return Err(PollError::Gone);
        }
        if start < self.first {
            return Err(PollError::Acknowledged { start, first: self.first });
        }
        Ok(start)
    }

    /// The messages from a number on, at most `count`.
    pub(in crate::server) fn from(&self, start: u64, count: usize) -> impl Iterator<Item = &Text> {
        let skipped = usize::try_from(start.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.messages.iter().skip(skipped).take(count).map(|(text, _)| text)
    }

    /// Copies the first messages for an answer, at most `count`. The ledger counts a forward as delivered the first
    /// time.
    pub(in crate::server) fn send(&mut self, count: usize, ledger: &Ledger) -> Vec<Text> {
        let sent = |(text, unsent): &mut (Text, bool)| {
            ledger.count_delivered(u64::from(std::mem::take(unsent)));
            text.clone()
        };
        let found: Vec<_> = self.messages.iter_mut().take(count).map(sent).collect();
        self.unsent = self.unsent.max(self.first + found.len() as u64);
        found
    }

    /// Removes the messages before `start`. A forward that was never fetched counts as gone: the client skipped it.
    /// Returns whether there were any.
    pub(in crate::server) fn acknowledge(&mut self, start: u64, ledger: &Ledger) -> bool {
        let first = self.first;
        while self.first < start
            && let Some((text, unsent)) = self.messages.pop_front()
        {
            ledger.count_gone(u64::from(unsent));
            self.bytes -= text.len() + MESSAGE_OVERHEAD;
            self.first += 1;
        }
        self.first > first
    }

    /// Removes all messages. Forwards that were never fetched count as gone.
    pub(in crate::server) fn close(&mut self, ledger: &Ledger) {
        ledger.count_gone(self.messages.drain(..).filter(|(_, unsent)| *unsent).count() as u64);
        self.bytes = 0;
    }
}
