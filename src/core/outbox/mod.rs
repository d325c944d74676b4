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
mod credit_wait;
mod end;
mod queue;
mod requests;

use std::borrow::Cow;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use self::budget::{Budget, MESSAGE_OVERHEAD, OutboxBounds};
use self::credit::Waiters;
pub use self::credit::{Queued, Share};
pub use self::credit_wait::CreditWait;
pub use self::end::End;
use self::queue::{Account, Kind, Message, Queue};
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
    /// Returns a forward that is queued now. `account` is that of a direct one.
    fn message(self, text: Text, now: Instant, account: Account) -> Message {
        match self {
            Self::Direct => Message { text, kind: Kind::Forward(now), account },
            Self::Released => Message { text, kind: Kind::Forward(now), account: Account::Free },
            Self::Copy => Message { text, kind: Kind::Copy, account: Account::Free },
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
    /// Whether its task has found nothing to do since the last change. Changed under the lock.
    idle: AtomicBool,
    /// Records the messages of the server, if there is a journal. The relay records forwards.
    peer_journal: Option<Box<PeerJournal>>,
    /// Whether the peer gets error messages. A Cuttlefish device does not (docs/protocol.md 4.1.2).
    says_errors: bool,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    requests: Requests,
    end: Option<End>,
    /// Refusal that closed the connection, if one did.
    refusal: Option<Box<Refusal>>,
    /// Whether [`Outgoing::Closing`] was returned.
    closing_reported: bool,
    /// Whether the task that drains the outbox has ended.
    drained: bool,
    waker: Option<Waker>,
    /// Clients that wait for room.
    waiters: Waiters,
    /// Forwards that were discarded on overflow, for the ledger.
    discarded: u64,
}

/// Requests that the task has not taken yet, and the callers that wait for their results.
#[derive(Debug, Default)]
struct Requests {
    /// The session has to recheck the state that it waits for.
    recheck: bool,
    ping: bool,
    /// Each sender is notified on a pong, and dropped when the outbox closes.
    probes: Vec<oneshot::Sender<()>>,
    /// Dropped once the task has rechecked, or has ended.
    waiters: Vec<mpsc::Sender<()>>,
}

impl Outbox {
    /// Creates an empty outbox.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            state: Mutex::new(State::default()),
            congested: AtomicBool::new(false),
            idle: AtomicBool::new(false),
            peer_journal: None,
            says_errors: true,
        }
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
        let message = Message { text, kind: Kind::Server, account: Account::Outbox };
        let _closed = self.enqueue(message, |_| true);
    }

    /// Queues `client_disconnected` for a client, behind its forwards, unless one for this id is queued already.
    pub fn push_left(&self, id: ClientId) {
        let text = outbound::client_disconnected(id);
        let message = Message { text, kind: Kind::Left(id), account: Account::Outbox };
        let _closed = self.enqueue(message, |state| !state.queue.has_left(id));
    }

    /// Queues a device's forward for its client. Returns the number of messages that are queued now.
    ///
    /// Above its own bytes the outbox borrows from the budget. If that is spent, the borrower with the oldest unsent
    /// message is closed (docs/protocol.md 4.3.13).
    ///
    /// # Errors
    /// [`Closed`] if the outbox is closed.
    pub fn push_forward(self: &Arc<Self>, text: Text, passage: Passage, now: Instant) -> Result<usize, Closed> {
        let (queued, own_bytes) = self.enqueue(passage.message(text, now, Account::Outbox), |_| true)?;
        if self.borrowed(own_bytes) > 0 {
            self.budget.enforce(self);
        }
        Ok(queued)
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
        let message = passage.message(text, now, Account::Sender(Arc::clone(share)));
        self.enqueue(message, |_| sender.load(Ordering::Acquire)).map(|(queued, _)| queued)
    }

    /// Queues a message, if it is allowed. Returns the number of messages and the bytes of the outbox.
    #[inline]
    fn enqueue(&self, message: Message, is_allowed: impl FnOnce(&State) -> bool) -> Result<(usize, usize), Closed> {
        let mut state = self.state.lock();
        if state.end.is_some() || !is_allowed(&state) {
            return Err(Closed);
        }
        self.add(&mut state, message);
        self.wake(&mut state);
        Ok((state.queue.len(), state.queue.own_bytes))
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
            self.add(&mut state, Message { text, kind: Kind::Server, account: Account::Outbox });
        }
        self.end(&mut state, end, None);
    }

    /// Closes with 1013 and discards the queue, since the peer does not read (docs/protocol.md 4.3.10). The senders are
    /// told when the peer leaves.
    pub fn close_slow(&self) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.discarded += self.discard(&mut state);
            self.end(&mut state, End::slow_consumer(), None);
        }
    }

    /// Closes without a close frame, since the peer has sent nothing for this long.
    pub fn close_silent(&self, silent_for: Duration) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            let seconds = silent_for.as_secs_f64().round();
            self.end(&mut state, End::Drop, Some(format!("silent for {seconds} s, {}", End::Drop)));
        }
    }

    /// Decides the end. The journal has it in the order of the queue, in these words if there are some.
    fn end(&self, state: &mut State, end: End, words: Option<String>) {
        if let Some(peer_journal) = self.peer_journal() {
            peer_journal.ended(words.unwrap_or_else(|| end.to_string()));
        }
        state.end = Some(end);
        state.requests.probes.clear();
        self.wake(state);
    }

    /// Records that the peer has left, unless the server has closed the connection.
    pub fn peer_left(&self) {
        if let Some(peer_journal) = self.peer_journal()
            && !self.is_closed()
        {
            peer_journal.left();
        }
    }

    /// Returns the refusal that closed the connection, if one did.
    pub fn refusal(&self) -> Option<Refusal> {
        self.state.lock().refusal.as_deref().cloned()
    }

    /// Returns the reason in the close frame with which the connection ends, if it has one.
    pub fn close_reason(&self) -> Option<Cow<'static, str>> {
        match &self.state.lock().end {
            Some(End::Close { reason, .. }) => Some(reason.clone()).filter(|reason| !reason.is_empty()),
            _ => None,
        }
    }

    /// Returns whether it was closed because its peer did not read.
    pub fn has_overflowed(&self) -> bool {
        self.state.lock().end == Some(End::slow_consumer())
    }

    /// Returns whether messages wait.
    pub fn has_messages(&self) -> bool {
        self.state.lock().queue.len() > 0
    }

    /// Returns whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// Returns whether there is nothing to do: the last [`Outbox::poll_next`] has stored the waker, with room for a
    /// message, and nothing has come since. A task that always polls with the same waker need not poll then.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Acquire)
    }

    /// Returns the next action, or stores the waker if there is none.
    ///
    /// `room` says whether the task could write a message now. Without room, only [`Outgoing::Recheck`] and
    /// [`Outgoing::Closing`] are returned.
    pub fn poll_next(&self, cx: &Context<'_>, room: bool) -> Poll<Outgoing> {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.requests.recheck) {
            return Poll::Ready(Outgoing::Recheck);
        }
        if state.end.is_some() && !std::mem::replace(&mut state.closing_reported, true) {
            return Poll::Ready(Outgoing::Closing);
        }
        if room {
            if std::mem::take(&mut state.requests.ping) {
                return Poll::Ready(Outgoing::Ping);
            }
            if let Some(Message { text, kind, .. }) = self.take(&mut state) {
                // The task need not poll again to learn that there is nothing more.
                if state.queue.len() == 0 && state.end.is_none() {
                    self.store_waker(&mut state, cx, true);
                }
                return Poll::Ready(Outgoing::Message { text, forward: kind.is_forward() });
            }
            if let Some(end) = &state.end {
                return Poll::Ready(Outgoing::End(end.clone()));
            }
        }
        self.store_waker(&mut state, cx, room);
        Poll::Pending
    }

    #[inline]
    fn store_waker(&self, state: &mut State, cx: &Context<'_>, idle: bool) {
        self.idle.store(idle, Ordering::Release);
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the task that drains the outbox.
    #[inline]
    fn wake(&self, state: &mut State) {
        self.idle.store(false, Ordering::Release);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Closes and empties the outbox after the transport has ended. Returns the number of forwards that were not
    /// written.
    ///
    /// The caller counts these in the ledger, then calls [`Outbox::rechecked`] to release the waiters.
    pub fn drain(&self) -> u64 {
        let mut state = self.state.lock();
        state.end.get_or_insert(End::Drop);
        state.waker = None;
        state.requests.probes.clear();
        state.drained = true;
        std::mem::take(&mut state.discarded) + self.discard(&mut state)
    }
}
