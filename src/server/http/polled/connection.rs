//! One polled client: its session, and the messages that wait for it.
//!
//! Requests lock the connection and call the session themselves. The task in [`keeper`](super::keeper) does what no
//! request does: it polls answers of hooks, keeps deadlines, and ends the session.

use std::borrow::Cow;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use super::kept::{KeptMessages, PollError, PollQuery};
use crate::core::driver::{Edge, Output, Phase as DriverPhase};
use crate::core::outbox::Outbox;
use crate::core::peer::Peer;
use crate::core::session::ClientSession;
use crate::protocol::{DeviceId, Text, outbound};
use crate::server::http::respond::STOPPING;
use crate::server::session_driver::SessionDriver;
use crate::server::settings::Settings;
use crate::server::shared::Shared;

/// Rounds in one poll, before the task yields to others.
const ROUNDS: usize = 64;

/// The state between the requests of one polled client.
pub(in crate::server) struct PolledConnection {
    /// The state that all connections share.
    pub(super) shared: Arc<Shared>,
    /// The settings that the connection began with.
    pub(super) settings: Arc<Settings>,
    /// The client that opened the connection.
    pub(super) peer: Arc<Peer>,
    /// The device that the client is connected to.
    pub(super) device: DeviceId,
    /// The queue of messages to the client.
    pub(super) outbox: Arc<Outbox>,
    /// The mutable state.
    pub(super) state: Mutex<State>,
    /// Notified of new messages and of the end.
    arrived: Notify,
    /// Notified when a forward may find room.
    pub(super) room: Notify,
}

/// The mutable state of a polled connection.
pub(super) struct State {
    /// Drives the session, until it is over.
    pub(super) session: Option<SessionDriver<ClientSession>>,
    /// Messages that the client has not acknowledged.
    kept: KeptMessages,
    /// The bytes of `kept` above which messages stay in the outbox.
    max_kept: usize,
    /// Requests that wait now.
    waiting: usize,
    /// The time of the last request.
    last_seen: Instant,
    /// The current phase.
    pub(super) phase: Phase,
    /// Wakes the keeper for this connection.
    pub(super) waker: Option<Waker>,
}

/// The phase of a polled connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The client has no device info yet, and does not know the connection id.
    Opening,
    /// The connection is in use.
    Open,
    /// The session is over. Remaining messages can still be fetched.
    Ended,
    /// The ledger is settled. Nothing can be fetched any more.
    Closed,
}

/// A request that waits. The client counts as present as long as it exists.
pub(super) struct PendingPoll<'a> {
    /// The connection of the request.
    connection: &'a PolledConnection,
    /// [`KeptMessages::unsent`] at the start of the request.
    unsent: u64,
}

impl<'a> PendingPoll<'a> {
    /// Counts the request as waiting.
    pub(super) fn new(connection: &'a PolledConnection) -> Self {
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
            state.last_seen = self.connection.shared.clock.now();
        }
    }
}

impl PolledConnection {
    /// Creates a connection without a session.
    pub(super) fn new(shared: &Arc<Shared>, peer: Arc<Peer>, outbox: Arc<Outbox>, device: DeviceId) -> Self {
        let settings = shared.settings();
        let state = State {
            session: None,
            kept: KeptMessages::default(),
            max_kept: settings.limits.backpressure.outbox_bytes,
            waiting: 0,
            last_seen: shared.clock.now(),
            phase: Phase::Opening,
            waker: None,
        };
        let (shared, state, arrived) = (Arc::clone(shared), Mutex::new(state), Notify::new());
        Self { shared, settings, peer, device, outbox, state, arrived, room: Notify::new() }
    }

    /// Adds the session. The keeper runs it from now on.
    pub(super) fn begin(&self, session: SessionDriver<ClientSession>) {
        self.state.lock().session = Some(session);
    }

    // Requests --------------------------------------------------------------------------------------------------------

    /// Returns whether the connection belongs to the sender of a request.
    ///
    /// The connection id alone is not enough where `authorize` tells identities apart.
    pub(in crate::server) fn belongs_to(&self, caller: &Peer) -> bool {
        self.peer.grant.identity == caller.grant.identity && caller.grant.covers(&self.device)
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
        let mut state = self.refreshed();
        let start = match state.start_of(query) {
            Ok(start) => start,
            Err(error) => return Some(Err(error)),
        };
        if start > state.kept.end() {
            return Some(Ok(Vec::new()));
        }
        self.acknowledge(&mut state, start);
        let found = state.kept.send(query.count, self.shared.relay.ledger());
        (!found.is_empty() || query.count == 0).then_some(Ok(found))
    }

    /// The messages that [`PolledConnection::fetch`] would return now. It acknowledges nothing.
    pub(in crate::server) fn peek(&self, query: &PollQuery) -> Result<Vec<Text>, PollError> {
        let state = self.refreshed();
        let start = state.start_of(query)?;
        Ok(state.kept.from(start, query.count).cloned().collect())
    }

    /// Fetches and acknowledges all messages, as `/poll_messages` does (docs/protocol.md 5.3.21).
    pub(in crate::server) fn take_all(&self) -> Result<Vec<Text>, PollError> {
        let mut state = self.refreshed();
        if state.phase == Phase::Closed || (state.phase == Phase::Ended && state.kept.is_empty()) {
            return Err(PollError::Gone);
        }
        state.last_seen = self.shared.clock.now();
        let found = state.kept.send(usize::MAX, self.shared.relay.ledger());
        let end = state.kept.end();
        self.acknowledge(&mut state, end);
        Ok(found)
    }

    /// Waits for the device info. `None` if the connection ends without it.
    pub(super) async fn first_message(&self) -> Option<Text> {
        let _pending = PendingPoll::new(self);
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.refreshed();
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
        let stopping = || self.shared.drain.no_more.is_cancelled().then_some(Cow::Borrowed(STOPPING));
        let refused = self.outbox.refusal().map(|refusal| refusal.text());
        // The node of the device has ended a client of this one by a close frame.
        refused.or_else(overflowed).or_else(stopping).or_else(|| self.outbox.close_reason())
    }

    /// Locks the state, and brings it up to date: it has the messages of the outbox, as far as there is room.
    pub(super) fn refreshed(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        self.refresh(&mut state);
        state
    }

    /// Brings the state up to date. The waker of the outbox stays the keeper's.
    fn refresh(&self, state: &mut State) {
        let Some(waker) = state.waker.clone() else { return };
        if let Some(session) = &mut state.session {
            session.begin_poll();
        }
        if state.receive(&TaskContext::from_waker(&waker)) {
            // The keeper does the rest: answers, deadlines, and the notice that the session has rechecked.
            waker.wake();
            state.end_if_over();
            self.arrived.notify_waiters();
        }
    }

    /// Removes the messages before `start`. A higher `start` is progress, and makes room.
    fn acknowledge(&self, state: &mut State, start: u64) {
        if state.kept.acknowledge(start, self.shared.relay.ledger()) {
            if let Some(session) = &mut state.session {
                session.driver.on_bytes_written(1);
            }
            self.refresh(state);
        }
    }

    // The keeper ------------------------------------------------------------------------------------------------------

    /// Runs the session. Ready when it is over.
    pub(super) fn poll_session(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        let mut arrived = false;
        let timeout = self.settings.limits.polled_timeout;
        for round in 0..=ROUNDS {
            let due = self.due(&state);
            let Some(session) = &mut state.session else { break };
            if round == 0 {
                session.begin_poll();
            }
            let answered = session.poll_answer(cx);
            let expired = session.check_deadlines(cx, due) || give_up(session, due, timeout);
            let received = state.receive(cx);
            arrived |= received;
            state.end_if_over();
            if round == ROUNDS {
                cx.waker().wake_by_ref();
            } else if !(answered || expired || received) {
                if let Some(session) = &mut state.session {
                    session.driver.on_pending();
                }
                break;
            }
        }
        let over = state.session.is_none();
        drop(state);
        // Requests that wait for room try again. Without one, this costs an atomic load.
        self.room.notify_waiters();
        if arrived || over {
            self.arrived.notify_waiters();
        }
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends a connection whose HTTP client disconnected before it got the connection id.
    pub(super) fn cancel(&self) {
        let mut state = self.state.lock();
        if let Some(session) = &mut state.session {
            session.driver.abort();
        }
        state.end_if_over();
        if let Some(waker) = &state.waker {
            waker.wake_by_ref();
        }
    }

    /// The time that the client has left to fetch the rest, once the session is over. `None` if there is none.
    pub(super) fn time_left(&self) -> Option<Duration> {
        let state = self.state.lock();
        let due = self.due(&state).filter(|_| state.phase != Phase::Closed)?;
        let now = self.shared.clock.now();
        (due > now).then(|| due - now)
    }

    /// The time at which the client counts as gone (docs/protocol.md 5.3.30). A request that waits counts as just
    /// arrived.
    fn due(&self, state: &State) -> Option<Instant> {
        let seen = if state.waiting > 0 { self.shared.clock.now() } else { state.last_seen };
        seen.checked_add(self.settings.limits.polled_timeout)
    }

    /// Ends the connection and settles the ledger.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.session = None;
        state.phase = Phase::Closed;
        state.kept.close(self.shared.relay.ledger());
        drop(state);
        self.room.notify_waiters();
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

    /// Moves messages from the outbox to those kept, as far as there is room. Returns true if it made progress.
    fn receive(&mut self, cx: &TaskContext<'_>) -> bool {
        let Some(session) = &mut self.session else { return false };
        let mut busy = false;
        while session.driver.is_open() {
            // The end needs no room.
            let room = self.kept.has_room(self.max_kept) || !session.driver.outbox().has_messages();
            let Poll::Ready(output) = session.poll_output(cx, room) else { break };
            busy = true;
            let Output::Text(text) = output else { continue };
            let forward = session.driver.take_unflushed() > 0;
            // An error ends the connection. The answer to the next request reports it, not a message.
            if outbound::type_of(&text) != "error" {
                self.kept.push(text, forward);
            }
        }
        if self.kept.has_room(self.max_kept) || !session.driver.outbox().has_messages() {
            session.driver.on_flushed(&mut session.edge);
        } else {
            session.driver.on_blocked(&mut session.edge);
        }
        busy
    }

    /// Ends the session if it is over. If the client does not know the id yet, nothing can be fetched.
    fn end_if_over(&mut self) {
        if self.session.as_ref().is_none_or(|session| session.driver.is_open()) {
            return;
        }
        self.session = None;
        self.phase = match self.phase {
            Phase::Opening | Phase::Closed => Phase::Closed,
            Phase::Open | Phase::Ended => Phase::Ended,
        };
    }
}

/// Drops a client that has sent no request for `timeout`, which is over at `due`. Returns whether it did.
fn give_up(session: &mut SessionDriver<ClientSession>, due: Option<Instant>, timeout: Duration) -> bool {
    let now = session.edge.now();
    let Some(due) = due.filter(|due| *due <= now && session.driver.phase() == DriverPhase::Open) else { return false };
    let edge = &session.edge;
    tracing::debug!(event = "polled_client_gone", role = edge.role(), peer = %edge.peer, "gave up {edge}");
    session.driver.handle_silence(now - due + timeout);
    true
}
