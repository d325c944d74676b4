//! One polled client: the payloads that it sent, and the messages that wait for it.

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

/// The maximum size of a `client_msg` without its payload, in bytes: with a client id of ten digits.
const MAX_ENVELOPE: usize = r#"{"message_type":"client_msg","client_id":2147483647,"payload":}"#.len();

/// The state between the requests of one polled client and its session.
pub(in crate::server) struct PolledConnection {
    /// The state that all connections share.
    pub(super) shared: Arc<Shared>,
    /// The device that the client is connected to.
    pub(super) device: DeviceId,
    /// The queue of messages to the client, which the message pump drains.
    pub(super) outbox: Arc<Outbox>,
    /// The mutable state.
    pub(super) state: Mutex<State>,
    /// Notified of new messages and of the end.
    pub(super) arrived: Notify,
}

/// The mutable state of a polled connection.
#[derive(Default)]
pub(super) struct State {
    /// Payloads that the session has not read yet.
    pub(super) incoming: VecDeque<String>,
    /// The size of `incoming` in bytes.
    pub(super) incoming_bytes: usize,
    /// Messages that the client has not acknowledged.
    pub(super) kept: KeptMessages,
    /// Requests that wait now.
    pub(super) waiting: usize,
    /// The time of the last request.
    pub(super) last_seen: Option<Instant>,
    /// The HTTP client disconnected before the connection was established.
    pub(super) cancelled: bool,
    /// The current phase.
    pub(super) phase: Phase,
    /// The waker of the message pump.
    pub(super) waker: Option<Waker>,
}

/// The phase of a polled connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// The client has no device info yet, and does not know the connection id.
    #[default]
    Opening,
    /// The connection is in use.
    Open,
    /// The session is over. Remaining messages can still be fetched.
    Ended,
    /// The ledger is settled. Nothing can be fetched any more.
    Closed,
}

/// A request that waits. The client counts as present as long as it exists.
struct PendingPoll<'a> {
    /// The connection of the request.
    connection: &'a PolledConnection,
    /// [`KeptMessages::unsent`] at the start of the request.
    unsent: u64,
}

impl<'a> PendingPoll<'a> {
    /// Counts the request as waiting.
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
        // Once the session is over, only a request that fetched new messages extends the lifetime.
        if state.phase != Phase::Ended || state.kept.unsent() > self.unsent {
            state.last_seen = Some(self.connection.shared.clock.now());
        }
        state.wake();
    }
}

impl PolledConnection {
    /// Checks that a payload fits a message to the device. If the device has gone, the session reports it.
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

    /// Queues a payload of the client for the session.
    ///
    /// # Errors
    /// [`PollError::Full`] if the queue is full, [`PollError::Gone`] if the connection is not open.
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

    /// Fetches messages from `start` on, and acknowledges those before it. Waits if there are none.
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

    /// Fetches without waiting. `None` if the query has to wait.
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

    /// The messages that [`PolledConnection::fetch`] would return now. It changes nothing.
    pub(in crate::server) fn peek(&self, query: &PollQuery) -> Result<Vec<Text>, PollError> {
        let state = self.state.lock();
        let start = state.start_of(query)?;
        Ok(state.kept.from(start, query.count).cloned().collect())
    }

    /// Fetches and acknowledges all messages, as `/poll_messages` does (docs/protocol.md 5.3.21).
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

    /// Waits for the device info. `None` if the connection ends without it.
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

    /// The reason of the end, if the server ended the connection.
    pub(in crate::server) fn end_reason(&self) -> Option<Cow<'static, str>> {
        let overflowed = || self.outbox.has_overflowed().then_some(Cow::Borrowed("Slow consumer"));
        self.outbox.refusal().map(|refusal| refusal.text()).or_else(overflowed)
    }

    /// The session is over. If the client does not know the id yet, nothing can be fetched.
    pub(super) fn end(&self) {
        let mut state = self.state.lock();
        state.phase = match state.phase {
            Phase::Opening | Phase::Closed => Phase::Closed,
            Phase::Open | Phase::Ended => Phase::Ended,
        };
        drop(state);
        self.arrived.notify_waiters();
    }

    /// The time that the client has left before it counts as gone. `None` if there is none.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        let due = self.due()?;
        (due > now).then(|| due - now)
    }

    /// The time at which the client counts as gone (docs/protocol.md 5.3.30). A request that waits counts as just
    /// arrived.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.state.lock();
        let seen = if state.waiting > 0 { self.shared.clock.now() } else { state.last_seen? };
        seen.checked_add(self.shared.config.limits.polled_timeout)
    }

    /// Ends the connection and settles the ledger.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Closed;
        state.kept.close(self.shared.relay.ledger());
        drop(state);
        self.arrived.notify_waiters();
    }
}

impl State {
    /// The number of the first message that a poll gets.
    fn start_of(&self, query: &PollQuery) -> Result<u64, PollError> {
        if self.phase == Phase::Closed {
            return Err(PollError::Gone);
        }
        self.kept.start_of(query, self.phase == Phase::Ended)
    }

    /// Wakes the message pump.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
