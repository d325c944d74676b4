//! The outbox: the bounded queue of messages to one peer.
//!
//! Any task may push; a push never waits. One task drains the queue: the pump of a WebSocket, or the message pump. It
//! knows how to write; the outbox knows the next message, and the end of the connection.
//!
//! The outbox also carries two requests to that task: [`Outbox::wake_session`] makes its session recheck its state, and
//! [`Outbox::probe`] finds out whether its peer is alive. So one waker serves messages and requests.

mod end;
mod queue;
mod signals;

use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;

pub use self::end::End;
pub use self::queue::OutboxBounds;
use self::queue::Queue;
use self::signals::Signals;
use crate::observe::journal::PeerJournal;
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// Next action of the task that drains the outbox.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Write this message.
    Message {
        /// The message.
        text: Text,
        /// Whether it counts in the ledger as a forward.
        forward: bool,
    },
    /// Send a ping now, and call [`Outbox::alive`] on a pong.
    Ping,
    /// Call [`Session::on_recheck`](crate::core::session::Session::on_recheck), then [`Outbox::rechecked`].
    Recheck,
    /// Call [`Session::leave`](crate::core::session::Session::leave): the outbox has closed. Returned at once, even
    /// while messages wait for room in the socket.
    Closing,
    /// End the connection. This is the last action.
    End(End),
}

/// The message was not queued and is dropped. Its sender has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// Queue of messages to one peer.
#[derive(Debug)]
pub struct Outbox {
    bounds: OutboxBounds,
    state: Mutex<State>,
    /// Records the messages of the server, if there is a journal. The relay records forwards.
    peer_journal: Option<Box<PeerJournal>>,
    /// Whether the peer gets error messages. A Cuttlefish device does not (docs/protocol.md 4.1.2).
    says_errors: bool,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    signals: Signals,
    end: Option<End>,
    /// Refusal that closed the connection, if one did.
    refusal: Option<Box<Refusal>>,
    /// Whether [`Outgoing::Closing`] was returned.
    closing_reported: bool,
    /// Whether the task that drains the outbox has ended.
    drained: bool,
    overflowed: bool,
    waker: Option<Waker>,
    /// Forwards that were discarded on overflow, for the ledger.
    discarded: u64,
}

impl Outbox {
    /// Creates an empty outbox.
    pub fn new(bounds: OutboxBounds) -> Self {
        Self { bounds, state: Mutex::new(State::default()), peer_journal: None, says_errors: true }
    }

    /// Makes it record the messages of the server in a journal.
    #[must_use]
    pub fn recorded(self, peer_journal: PeerJournal) -> Self {
        Self { peer_journal: Some(Box::new(peer_journal)), ..self }
    }

    /// Makes it send no errors, for a Cuttlefish device.
    ///
    /// A refusal that closes becomes only the reason of the close (docs/protocol.md 4.1.3). Any other refusal is not
    /// sent (docs/protocol.md 4.1.4).
    #[must_use]
    pub fn without_errors(self) -> Self {
        Self { says_errors: false, ..self }
    }

    /// Returns whether the peer gets error messages.
    pub fn says_errors(&self) -> bool {
        self.says_errors
    }

    /// Returns the recorder of this peer, if there is a journal.
    pub fn peer_journal(&self) -> Option<&PeerJournal> {
        self.peer_journal.as_deref()
    }

    /// Queues a message of the server. A closed outbox ignores it, since the peer has left.
    pub fn push(&self, text: Text) {
        let recorded = self.peer_journal.is_some().then(|| text.clone());
        let _closed = self.enqueue(text, false, || {
            if let Some(text) = &recorded {
                self.record(|peer_journal| peer_journal.sent(text));
            }
            true
        });
    }

    /// Queues a message that carries a forward. The ledger counts it only if `counted`.
    ///
    /// # Errors
    /// [`Closed`] if the outbox is closed, or closes now because it is full.
    pub fn push_forward(&self, text: Text, counted: bool) -> Result<(), Closed> {
        self.enqueue(text, counted, || true)
    }

    /// Queues a message that carries a forward, if `sender` is set when the queue is locked.
    ///
    /// The flag of a client is cleared before its `client_disconnected` is pushed. So no forward of a client can come
    /// after its `client_disconnected` (docs/protocol.md 2.4). The ledger counts the message only if `counted`: the
    /// second copy of a duplicate is not counted.
    ///
    /// # Errors
    /// [`Closed`] as in [`Outbox::push_forward`], and if the flag is cleared.
    pub fn push_forward_while(&self, text: Text, counted: bool, sender: &AtomicBool) -> Result<(), Closed> {
        self.enqueue(text, counted, || sender.load(Ordering::Acquire))
    }

    fn enqueue(&self, text: Text, forward: bool, is_allowed: impl FnOnce() -> bool) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if state.end.is_some() || !is_allowed() {
            return Err(Closed);
        }
        if !state.queue.has_room(&text, self.bounds) {
            self.overflow(&mut state);
            return Err(Closed);
        }
        state.queue.push(text, forward);
        state.wake();
        Ok(())
    }

    /// Queues the error, if the peer gets errors, and closes the outbox, if the refusal closes the connection.
    pub fn refuse(&self, refusal: &Refusal) {
        let error = self.says_errors.then(|| refusal.message());
        match (refusal.close_code(), error) {
            (Some(code), error) => {
                self.state.lock().refusal.get_or_insert_with(|| Box::new(refusal.clone()));
                self.close(error, End::Close { code, reason: refusal.text() });
            }
            (None, Some(error)) => self.push(error),
            (None, None) => {}
        }
    }

    /// Closes the outbox. Queued messages are written first, then `last`, then the connection ends.
    ///
    /// Only the first call has an effect. `last` may exceed the bounds: it is one message, and tells the peer the
    /// reason.
    pub fn close(&self, last: Option<Text>, end: End) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        if let Some(text) = last {
            self.record(|peer_journal| peer_journal.sent(&text));
            state.queue.push(text, false);
        }
        self.record(|peer_journal| peer_journal.ended(end.to_string()));
        state.end = Some(end);
        state.signals.drop_probes();
        state.wake();
    }

    /// Closes with 1013 and discards the queue, since the peer does not read (docs/protocol.md 4.3.10).
    pub fn close_slow(&self) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            self.overflow(&mut state);
        }
    }

    /// Discards the queue of a peer that does not read. The senders are told when the peer leaves.
    fn overflow(&self, state: &mut State) {
        state.discarded += state.queue.clear();
        state.overflowed = true;
        let end = End::close(1013, "slow consumer");
        self.record(|peer_journal| peer_journal.ended(end.to_string()));
        state.end = Some(end);
        state.signals.drop_probes();
        state.wake();
    }

    /// Records that the peer has left, unless the server has closed the connection.
    pub fn peer_left(&self) {
        if let Some(peer_journal) = self.peer_journal()
            && !self.is_closed()
        {
            peer_journal.left();
        }
    }

    /// Records an event. The caller holds the lock of the outbox, so that the journal has the order of the queue.
    fn record(&self, write: impl FnOnce(&PeerJournal)) {
        if let Some(peer_journal) = self.peer_journal() {
            write(peer_journal);
        }
    }

    /// Asks the task to let its session recheck its state.
    pub fn wake_session(&self) {
        let mut state = self.state.lock();
        state.signals.request_recheck();
        state.wake();
    }

    /// Calls [`Outbox::wake_session`] and drops `waiter` when the task has rechecked and done all that was due, or has
    /// ended.
    pub fn wake_session_and_notify(&self, waiter: mpsc::Sender<()>) {
        let mut state = self.state.lock();
        if !state.drained {
            state.signals.add_waiter(waiter);
            state.wake();
        }
    }

    /// Reports that the task has rechecked, and done all that was due.
    pub fn rechecked(&self) {
        self.state.lock().signals.drop_waiters();
    }

    /// Asks the task to ping its peer.
    pub fn ping(&self) {
        let mut state = self.state.lock();
        state.signals.request_ping();
        state.wake();
    }

    /// Asks the task to ping its peer. The receiver gets `()` on the pong, or an error when the outbox closes.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (pong, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.signals.add_probe(pong);
            state.wake();
        }
        answer
    }

    /// Reports a pong of the peer.
    pub fn alive(&self) {
        self.state.lock().signals.answer_probes();
    }

    /// Returns the refusal that closed the connection, if one did.
    pub fn refusal(&self) -> Option<Refusal> {
        self.state.lock().refusal.as_deref().cloned()
    }

    /// Returns whether it was closed because its peer did not read.
    pub fn has_overflowed(&self) -> bool {
        self.state.lock().overflowed
    }

    /// Returns whether messages wait.
    pub fn has_messages(&self) -> bool {
        !self.state.lock().queue.is_empty()
    }

    /// Returns whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Returns the next action, or stores the waker if there is none.
    ///
    /// `room` says whether the task could write a message now. Without room, only [`Outgoing::Recheck`] and
    /// [`Outgoing::Closing`] are returned.
    pub fn poll_next(&self, cx: &Context<'_>, room: bool) -> Poll<Outgoing> {
        let mut state = self.state.lock();
        if state.signals.take_recheck() {
            return Poll::Ready(Outgoing::Recheck);
        }
        if state.end.is_some() && !std::mem::replace(&mut state.closing_reported, true) {
            return Poll::Ready(Outgoing::Closing);
        }
        if room {
            if state.signals.take_ping() {
                return Poll::Ready(Outgoing::Ping);
            }
            if let Some((text, forward)) = state.queue.pop() {
                return Poll::Ready(Outgoing::Message { text, forward });
            }
            if let Some(end) = &state.end {
                return Poll::Ready(Outgoing::End(end.clone()));
            }
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Closes and empties the outbox after the transport has ended. Returns the number of forwards that were not
    /// written.
    ///
    /// The caller counts these in the ledger, then calls [`Outbox::rechecked`] to release the waiters.
    pub fn drain(&self) -> u64 {
        let mut state = self.state.lock();
        state.end.get_or_insert(End::Drop);
        state.waker = None;
        state.signals.drop_probes();
        state.drained = true;
        std::mem::take(&mut state.discarded) + state.queue.clear()
    }
}

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
