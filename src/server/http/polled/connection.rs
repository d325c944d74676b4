//! One client that polls: what it has sent, and the messages that wait for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::kept::{KeptMessages, PollError, PollQuery};
use crate::core::outbox::Outbox;
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text, outbound};
use crate::server::shared::Shared;

/// The bytes of a `client_msg` around its payload, at most: those of a client id of ten digits.
const MAX_ENVELOPE: usize = r#"{"message_type":"client_msg","client_id":2147483647,"payload":}"#.len();

/// What one client that polls has said, and what there is for it.
pub(in crate::server) struct PolledConnection {
    pub(super) shared: Arc<Shared>,
    pub(super) device: DeviceId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) state: Mutex<State>,
    /// Told when there is more to fetch, or nothing any more.
    pub(super) arrived: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) incoming: VecDeque<String>,
    pub(super) incoming_bytes: usize,
    /// What there is for the client.
    pub(super) kept: KeptMessages,
    /// Requests that are waiting now.
    pub(super) waiting: usize,
    pub(super) last_seen: Option<Instant>,
    /// Whoever asked for the connection has gone before it was there.
    pub(super) cancelled: bool,
    pub(super) phase: Phase,
    pub(super) waker: Option<Waker>,
}

/// How far a mailbox is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Its client has no device info yet, and does not know its id.
    #[default]
    Opening,
    /// In use.
    Open,
    /// Its session is over; what there is can still be fetched.
    Ended,
    /// The books are closed: nothing is fetched any more.
    Closed,
}

/// A request that waits: its client is there for as long.
struct PendingPoll<'a> {
    connection: &'a PolledConnection,
    /// [`Kept::unsent`] when it came.
    unsent: u64,
}

impl<'a> PendingPoll<'a> {
    fn new(connection: &'a PolledConnection) -> Self {
        let mut state = connection.state.lock();
        state.waiting += 1;
        Self { connection, unsent: state.kept.unsent() }
    }
}

impl Drop for PendingPoll<'_> {
    fn drop(&mut self) {
        let mut state = self.connection.state.lock();
        state.waiting -= 1;
        // Once the session is over, only what is fetched for the first time keeps the rest.
        if state.phase != Phase::Ended || state.kept.unsent() > self.unsent {
            state.last_seen = Some(self.connection.shared.clock.now());
        }
        state.wake();
    }
}

impl PolledConnection {
    /// Whether a payload fits a message to the device. Where the device has gone, the session says so.
    ///
    /// # Errors
    /// [`Refusal::ForwardTooLarge`].
    pub(in crate::server) fn check_size(&self, payload: &str) -> Result<(), Refusal> {
        let Some(device) = self.shared.hub.device(&self.device) else { return Ok(()) };
        let limit = device.peer.max_message;
        if payload.len() + MAX_ENVELOPE <= limit {
            return Ok(());
        }
        let Some(client) = device.client_with(&self.outbox) else { return Ok(()) };
        let size = outbound::client_msg(client.id, payload).len();
        if size > limit { Err(Refusal::ForwardTooLarge { size, limit }) } else { Ok(()) }
    }

    /// The client says a payload.
    pub(in crate::server) fn push(&self, payload: String) -> Result<(), PollError> {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return Err(PollError::Gone);
        }
        let limits = &self.shared.config.limits;
        if state.incoming.len() >= limits.outbox_messages || state.incoming_bytes + payload.len() > limits.outbox_bytes
        {
            return Err(PollError::Full);
        }
        state.incoming_bytes += payload.len();
        state.last_seen = Some(self.shared.clock.now());
        state.incoming.push_back(payload);
        state.wake();
        Ok(())
    }

    /// The messages that are wanted; acknowledges those before them. Where there are none, waits for them.
    pub(in crate::server) async fn fetch(&self, query: &PollQuery) -> Result<Vec<Text>, PollError> {
        let _pending = PendingPoll::new(self);
        let fetched = async {
            loop {
                let arrived = self.arrived.notified();
                if let Some(done) = self.try_fetch(query) {
                    return done;
                }
                tokio::select! {
                    () = arrived => {}
                    () = self.shared.stopping.cancelled() => return Ok(Vec::new()),
                }
            }
        };
        match self.try_fetch(query) {
            Some(done) => done,
            None if query.wait.is_zero() => Ok(Vec::new()),
            None => self.shared.clock.timeout(query.wait, fetched).await.unwrap_or(Ok(Vec::new())),
        }
    }

    /// What there is, if it needs no waiting.
    fn try_fetch(&self, query: &PollQuery) -> Option<Result<Vec<Text>, PollError>> {
        let mut state = self.state.lock();
        let start = match state.start_of(query) {
            Ok(start) => start,
            Err(error) => return Some(Err(error)),
        };
        if start > state.kept.end() {
            return Some(Ok(Vec::new()));
        }
        state.kept.acknowledge(start, self.shared.relay.ledger());
        let found = state.kept.send(query.count, self.shared.relay.ledger());
        state.wake();
        (!found.is_empty() || query.count == 0).then_some(Ok(found))
    }

    /// What [`PolledConnection::fetch`] would return now. Changes nothing.
    pub(in crate::server) fn peek(&self, query: &PollQuery) -> Result<Vec<Text>, PollError> {
        let state = self.state.lock();
        let start = state.start_of(query)?;
        Ok(state.kept.from(start, query.count).cloned().collect())
    }

    /// All there is, acknowledged as it goes out (the reference's way).
    pub(in crate::server) fn take_all(&self) -> Result<Vec<Text>, PollError> {
        let mut state = self.state.lock();
        if state.phase == Phase::Closed || (state.phase == Phase::Ended && state.kept.is_empty()) {
            return Err(PollError::Gone);
        }
        state.last_seen = Some(self.shared.clock.now());
        let found = state.kept.send(usize::MAX, self.shared.relay.ledger());
        let end = state.kept.end();
        state.kept.acknowledge(end, self.shared.relay.ledger());
        state.wake();
        Ok(found)
    }

    /// The device info; `None` where the connection ends without.
    pub(super) async fn first_message(&self) -> Option<Text> {
        let _pending = PendingPoll::new(self);
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state.lock();
                if state.phase != Phase::Opening {
                    return None;
                }
                if let Some(text) = state.kept.pop() {
                    state.phase = Phase::Open;
                    return Some(text);
                }
            }
            arrived.await;
        }
    }

    /// Why the connection has ended, where the server has ended it.
    pub(in crate::server) fn end_reason(&self) -> Option<Cow<'static, str>> {
        let overflowed = || self.outbox.has_overflowed().then_some(Cow::Borrowed("Slow consumer"));
        self.outbox.refusal().map(|refusal| refusal.text()).or_else(overflowed)
    }

    /// Its session is over. Of one that was refused nobody knows the id: there is nothing to fetch.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.phase = match state.phase {
            Phase::Opening | Phase::Closed => Phase::Closed,
            Phase::Open | Phase::Ended => Phase::Ended,
        };
        drop(state);
        self.arrived.notify_waiters();
    }

    /// For how long the client may stay away yet; `None` once it was too long.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        let due = self.due()?;
        (due > now).then(|| due - now)
    }

    /// When the client is given up: a request that waits is as good as one that has just come.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.state.lock();
        let seen = if state.waiting > 0 { self.shared.clock.now() } else { state.last_seen? };
        seen.checked_add(self.shared.config.limits.polled_timeout)
    }

    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        state.kept.close(self.shared.relay.ledger());
        drop(state);
        self.arrived.notify_waiters();
    }
}

impl State {
    /// From which number on a poll gets messages.
    fn start_of(&self, query: &PollQuery) -> Result<u64, PollError> {
        if self.phase == Phase::Closed {
            return Err(PollError::Gone);
        }
        self.kept.start_of(query, self.phase == Phase::Ended)
    }

    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
