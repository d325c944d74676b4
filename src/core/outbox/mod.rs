//! The outbox: the queue of messages to one peer.
//!
//! Any task may push; a push never waits. One task drains the queue, through the driver of the connection. It knows how
//! to write; the outbox knows the next message, and the end of the connection.
//!
//! The queue is bounded from outside. A client needs [credit](Share) before it may queue a forward for its device. A
//! device does not: the outbox of a client borrows from the [`Budget`] of the server.
//!
//! The outbox also carries two requests to that task: [`Outbox::wake_session`] makes its session recheck its state, and
//! [`Outbox::probe`] finds out whether its peer is alive. So one waker serves messages and requests.

mod account;
mod budget;
mod credit;
mod end;
mod queue;
mod requests;
mod signals;
mod waiting;

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

pub use self::budget::{Budget, MESSAGE_OVERHEAD, OutboxBounds};
use self::credit::Waiters;
pub use self::credit::{Queued, Share};
pub use self::end::End;
use self::queue::{Kind, Message, Queue};
use self::signals::Signals;
pub use self::waiting::Waiting;
use crate::observe::journal::PeerJournal;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, Text, outbound};
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
        /// Whether it is the last for now: the waker is stored, as with `Poll::Pending`.
        last: bool,
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

/// Result of a push.
struct Enqueued {
    /// Messages that are queued now.
    messages: usize,
    /// Whether the outbox borrows.
    borrows: bool,
}

/// The message was not queued and is dropped. Its sender has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// The way on which a forward came to the outbox of its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// From its sender. It holds credit, or counts towards the bytes of the outbox.
    Direct,
    /// From a fault that has held it. It uses no credit and never overflows: the faults have a bound of their own.
    Released,
    /// Further copy of a duplicate: as [`Passage::Released`], and the ledger does not count it.
    Copy,
}

impl Passage {
    /// Returns the kind of a forward that is queued now.
    fn kind(self, now: Instant) -> Kind {
        match self {
            Self::Direct => Kind::Forward(now),
            Self::Released => Kind::Released(now),
            Self::Copy => Kind::Copy,
        }
    }
}

/// Queue of messages to one peer.
#[derive(Debug)]
pub struct Outbox {
    /// Bounds, and the account of borrowed bytes.
    budget: Arc<Budget>,
    state: Mutex<State>,
    /// Whether clients have to wait until low water. Changed under the lock.
    congested: AtomicBool,
    /// Records the messages of the server, if there is a journal. The relay records forwards.
    peer_journal: Option<Box<PeerJournal>>,
    /// Whether the peer gets error messages. A Cuttlefish device does not (docs/protocol.md 4.1.2).
    says_errors: bool,
}

#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "they come and go independently of each other")]
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
    /// Whether the budget knows that it may borrow.
    is_borrower: bool,
    waker: Option<Waker>,
    /// Clients that wait for room.
    waiters: Waiters,
    /// Forwards that were discarded on overflow, for the ledger.
    discarded: u64,
}

impl Outbox {
    /// Creates an empty outbox.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            state: Mutex::new(State::default()),
            congested: AtomicBool::new(false),
            peer_journal: None,
            says_errors: true,
        }
    }

    /// Returns its bounds.
    fn bounds(&self) -> &OutboxBounds {
        &self.budget.bounds
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
        self.push_own(text, Kind::Server);
    }

    /// Queues `client_disconnected` for a client that has just left, behind its forwards.
    pub fn push_left(&self, id: ClientId) {
        self.push_own(outbound::client_disconnected(id), Kind::Left(id));
    }

    /// Queues `client_disconnected` for a client, unless one for this id is queued already.
    pub fn push_left_again(&self, id: ClientId) {
        if !self.state.lock().queue.has_left(id) {
            self.push_left(id);
        }
    }

    fn push_own(&self, text: Text, kind: Kind) {
        let recorded = self.peer_journal.is_some().then(|| text.clone());
        let _closed = self.enqueue(Message { text, share: None, kind }, || {
            if let Some(text) = &recorded {
                self.record(|peer_journal| peer_journal.sent(text));
            }
            true
        });
    }

    /// Queues a device's forward for its client. Returns the number of messages that are queued now.
    ///
    /// Above its own bytes the outbox borrows from the budget. If that is spent, the borrower with the oldest unsent
    /// message is closed (docs/protocol.md 4.3.13).
    ///
    /// # Errors
    /// [`Closed`] if the outbox is closed.
    pub fn push_forward(self: &Arc<Self>, text: Text, passage: Passage, now: Instant) -> Result<usize, Closed> {
        let message = Message { text, share: None, kind: passage.kind(now) };
        let queued = self.enqueue(message, || true)?;
        if queued.borrows {
            if !std::mem::replace(&mut self.state.lock().is_borrower, true) {
                let borrower = Arc::downgrade(self);
                self.budget.add_borrower(borrower);
            }
            self.budget.enforce();
        }
        Ok(queued.messages)
    }

    /// Queues a client's forward for its device, if `sender` is set when the queue is locked. Returns the number of
    /// messages that are queued now.
    ///
    /// The flag of a client is cleared before its `client_disconnected` is pushed. So no forward of a client can come
    /// after its `client_disconnected` (docs/protocol.md 2.4). The forward holds credit of `share`. It is queued in any
    /// case: the client asks [`Outbox::may_queue`] before.
    ///
    /// # Errors
    /// [`Closed`] if the outbox is closed or the flag is cleared.
    pub fn push_forward_while(
        &self,
        text: Text,
        passage: Passage,
        now: Instant,
        sender: &AtomicBool,
        share: &Arc<Share>,
    ) -> Result<usize, Closed> {
        let share = (passage == Passage::Direct).then(|| Arc::clone(share));
        let message = Message { text, share, kind: passage.kind(now) };
        self.enqueue(message, || sender.load(Ordering::Acquire)).map(|queued| queued.messages)
    }

    fn enqueue(&self, message: Message, is_allowed: impl FnOnce() -> bool) -> Result<Enqueued, Closed> {
        let mut state = self.state.lock();
        if state.end.is_some() || !is_allowed() {
            return Err(Closed);
        }
        let borrows = self.add(&mut state, message);
        state.wake();
        Ok(Enqueued { messages: state.queue.len(), borrows })
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
            self.add(&mut state, Message { text, share: None, kind: Kind::Server });
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
        state.discarded += self.discard(state);
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
            if let Some(Message { text, kind, .. }) = self.take(&mut state) {
                let last = state.queue.is_empty() && state.end.is_none();
                if last {
                    state.store_waker(cx);
                }
                return Poll::Ready(Outgoing::Message { text, forward: kind.is_forward(), last });
            }
            if let Some(end) = &state.end {
                return Poll::Ready(Outgoing::End(end.clone()));
            }
        }
        state.store_waker(cx);
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
        std::mem::take(&mut state.discarded) + self.discard(&mut state)
    }
}

impl State {
    fn store_waker(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
