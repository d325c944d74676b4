//! The messages of a polled connection, numbered from 0: kept from when they come until the client acknowledges them, by
//! asking for a later one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::observe::ledger::Ledger;
use crate::protocol::Text;

/// Why nothing can be fetched, or said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum PollError {
    /// The connection has ended, and all that there was has been fetched.
    Gone,
    /// The client asks for messages that it has acknowledged.
    Acknowledged {
        /// From which number on.
        start: u64,
        /// The number of the first that is kept.
        first: u64,
    },
    /// More was said than the session has taken yet.
    Full,
}

/// What a poll asks for.
pub(in crate::server) struct PollQuery {
    /// From which number on; everything before it is acknowledged. `None` is from the first that there is.
    pub(in crate::server) start: Option<u64>,
    /// At most so many messages.
    pub(in crate::server) count: usize,
    /// How long to wait for the first of them.
    pub(in crate::server) wait: Duration,
}

#[derive(Default)]
pub(in crate::server) struct KeptMessages {
    /// Each with whether it is a forward that no answer has had yet.
    messages: VecDeque<(Text, bool)>,
    bytes: usize,
    /// The number of the first of them.
    first: u64,
    /// The number of the first that no answer has had yet.
    unsent: u64,
}

impl KeptMessages {
    pub(in crate::server) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many, and how many bytes.
    pub(in crate::server) fn size(&self) -> (usize, usize) {
        (self.messages.len(), self.bytes)
    }

    /// The number of the first message that no answer has had yet.
    pub(in crate::server) fn unsent(&self) -> u64 {
        self.unsent
    }

    /// The number of the next message that comes.
    pub(in crate::server) fn end(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    pub(in crate::server) fn push(&mut self, text: Text, forward: bool) {
        self.bytes += text.len();
        self.messages.push_back((text, forward));
    }

    /// Takes a message that has no number: the device info, which comes before all others.
    pub(in crate::server) fn pop(&mut self) -> Option<Text> {
        let (text, _) = self.messages.pop_front()?;
        self.bytes -= text.len();
        Some(text)
    }

    /// From which number on a poll gets messages. `has_ended` tells that no more will come.
    pub(in crate::server) fn start_of(&self, query: &PollQuery, has_ended: bool) -> Result<u64, PollError> {
        let start = query.start.unwrap_or(self.first);
        let all_sent = self.unsent >= self.end();
        // An answer may have been lost: a client that says from where on gets it again, until it acknowledges it.
        let repeats = query.start.is_some() && start >= self.first;
        if has_ended && (start >= self.end() || (all_sent && !repeats)) {
            return Err(PollError::Gone);
        }
        if start < self.first {
            return Err(PollError::Acknowledged { start, first: self.first });
        }
        Ok(start)
    }

    /// The messages from this number on, at most so many.
    pub(in crate::server) fn from(&self, start: u64, count: usize) -> impl Iterator<Item = &Text> {
        let skipped = usize::try_from(start.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.messages.iter().skip(skipped).take(count).map(|(text, _)| text)
    }

    /// The first messages, at most so many, for an answer. Each is booked the first time.
    pub(in crate::server) fn send(&mut self, count: usize, ledger: &Ledger) -> Vec<Text> {
        let sent = |(text, unsent): &mut (Text, bool)| {
            ledger.count_delivered(u64::from(std::mem::take(unsent)));
            text.clone()
        };
        let found: Vec<_> = self.messages.iter_mut().take(count).map(sent).collect();
        self.unsent = self.unsent.max(self.first + found.len() as u64);
        found
    }

    /// The client has all messages before this number. One that it has never fetched is lost: the client counts wrong.
    pub(in crate::server) fn acknowledge(&mut self, start: u64, ledger: &Ledger) {
        while self.first < start
            && let Some((text, unsent)) = self.messages.pop_front()
        {
            ledger.count_gone(u64::from(unsent));
            self.bytes -= text.len();
            self.first += 1;
        }
    }

    /// Nothing is fetched any more.
    pub(in crate::server) fn close(&mut self, ledger: &Ledger) {
        ledger.count_gone(self.messages.drain(..).filter(|(_, unsent)| *unsent).count() as u64);
        self.bytes = 0;
    }
}
