//! Where messages to a peer wait: bounded, never waits itself, and remembers why it closed.
//!
//! Anyone may push; one edge drains (a WebSocket here). The edge knows how to write, the outbox only what comes next.
//! It is also the one place where the rest of the house can tap a peer's edge on the shoulder: to look again at the
//! state of the world ([`Outbox::wake_session`]) and to find out whether its peer is alive ([`Outbox::probe`]).

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

/// What the edge has to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// Write this message. `forward` tells whether it counts in the ledger.
    Message {
        /// The message.
        text: Text,
        /// Whether a peer's forward is in it.
        forward: bool,
    },
    /// Send a ping now, and call [`Outbox::alive`] on a pong.
    Ping,
    /// Let the session look again at what it waits for.
    Recheck,
    /// The outbox has closed: the session is over. Comes at once, though messages still wait for room.
    Closing,
    /// Nothing comes after this.
    End(End),
}

/// Why a push was not taken. The message is dropped; its sender has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

/// A peer's waiting messages.
#[derive(Debug)]
pub struct Outbox {
    bounds: OutboxBounds,
    state: Mutex<State>,
    /// Where there is a journal: who writes down what is said here. Forwards are written down by who relays them.
    peer_journal: Option<Box<PeerJournal>>,
    /// Whether the peer is told errors: not so for Cuttlefish's own devices (docs/protocol.md 4).
    says_errors: bool,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    signals: Signals,
    end: Option<End>,
    /// Why, where its peer was refused.
    refusal: Option<Box<Refusal>>,
    /// Whether the edge knows of the end.
    end_told: bool,
    /// There is no edge any more.
    drained: bool,
    overflowed: bool,
    waker: Option<Waker>,
    /// Forwards thrown away when the outbox overflowed, for the ledger.
    discarded: u64,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(bounds: OutboxBounds) -> Self {
        Self { bounds, state: Mutex::new(State::default()), peer_journal: None, says_errors: true }
    }

    /// One whose words are written down.
    #[must_use]
    pub fn recorded(self, peer_journal: PeerJournal) -> Self {
        Self { peer_journal: Some(Box::new(peer_journal)), ..self }
    }

    /// One that says no errors: a refusal that closes is the reason of the close alone, any other is not said.
    #[must_use]
    pub fn without_errors(self) -> Self {
        Self { says_errors: false, ..self }
    }

    /// Whether a refusal is said to the peer as an `error` message.
    pub fn says_errors(&self) -> bool {
        self.says_errors
    }

    /// Who writes down what is said here, where somebody does.
    pub fn peer_journal(&self) -> Option<&PeerJournal> {
        self.peer_journal.as_deref()
    }

    /// Queues a message of the server's own. Where the outbox has closed there is nobody left to tell.
    pub fn push(&self, text: Text) {
        let said = self.peer_journal.is_some().then(|| text.clone());
        let _closed = self.enqueue(text, false, || {
            if let Some(said) = &said {
                self.write_down(|peer_journal| peer_journal.said(said));
            }
            true
        });
    }

    /// Queues a message that carries a peer's forward. What is not `counted` stays out of the ledger.
    ///
    /// # Errors
    /// [`Closed`] if the outbox has closed, or closes now because it is full.
    pub fn push_forward(&self, text: Text, counted: bool) -> Result<(), Closed> {
        self.enqueue(text, counted, || true)
    }

    /// [`Outbox::push_forward`], only if `sender` is still set when it is this message's turn. With the flag cleared
    /// before the sender's leaving is pushed, nothing of a sender can come after the news that it left. What is not
    /// `counted` stays out of the ledger: a fault's second copy.
    ///
    /// # Errors
    /// [`Closed`] as for [`Outbox::push_forward`], and if the flag is cleared.
    pub fn push_forward_while(&self, text: Text, counted: bool, sender: &AtomicBool) -> Result<(), Closed> {
        self.enqueue(text, counted, || sender.load(Ordering::Acquire))
    }

    fn enqueue(&self, text: Text, forward: bool, still: impl FnOnce() -> bool) -> Result<(), Closed> {
        let mut state = self.state.lock();
        if state.end.is_some() || !still() {
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

    /// Says no: queues the error, where this outbox says errors, and the close, where the refusal ends the connection.
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

    /// Closes: nothing can be pushed any more; what waits goes out first, then `last`, then the end. The first end
    /// wins. `last` may go over the bounds: it is one message, and says why.
    pub fn close(&self, last: Option<Text>, end: End) {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return;
        }
        if let Some(text) = last {
            self.write_down(|peer_journal| peer_journal.said(&text));
            state.queue.push(text, false);
        }
        self.write_down(|peer_journal| peer_journal.ended(end.to_string()));
        state.end = Some(end);
        state.signals.drop_probes();
        state.wake();
    }

    /// Closes with 1013, and throws away what waits: the peer takes nothing.
    pub fn close_slow(&self) {
        let mut state = self.state.lock();
        if state.end.is_none() {
            self.overflow(&mut state);
        }
    }

    /// The peer does not read: what waits is thrown away, its senders are told by its leaving.
    fn overflow(&self, state: &mut State) {
        state.discarded += state.queue.clear();
        state.overflowed = true;
        let end = End::close(1013, "slow consumer");
        self.write_down(|peer_journal| peer_journal.ended(end.to_string()));
        state.end = Some(end);
        state.signals.drop_probes();
        state.wake();
    }

    /// Its peer has left, and was not sent away.
    pub fn peer_left(&self) {
        if let Some(peer_journal) = self.peer_journal()
            && !self.is_closed()
        {
            peer_journal.left();
        }
    }

    /// With the outbox's lock held, so that what is written down stands in the order in which it is said.
    fn write_down(&self, write: impl FnOnce(&PeerJournal)) {
        if let Some(peer_journal) = self.peer_journal() {
            write(peer_journal);
        }
    }

    /// Asks the edge to let its session look again.
    pub fn wake_session(&self) {
        let mut state = self.state.lock();
        state.signals.request_recheck();
        state.wake();
    }

    /// [`Outbox::wake_session`]; drops `waiter` once the edge has looked and done all that was due, or is gone.
    pub fn wake_session_and_notify(&self, waiter: mpsc::Sender<()>) {
        let mut state = self.state.lock();
        if !state.drained {
            state.signals.add_waiter(waiter);
            state.wake();
        }
    }

    /// The edge has looked, and done all that was due.
    pub fn rechecked(&self) {
        self.state.lock().signals.drop_waiters();
    }

    /// Asks the edge to ping its peer.
    pub fn ping(&self) {
        let mut state = self.state.lock();
        state.signals.request_ping();
        state.wake();
    }

    /// Asks the edge to ping its peer. The receiver hears on the pong, or fails once the outbox has closed.
    pub fn probe(&self) -> oneshot::Receiver<()> {
        let (heard, answer) = oneshot::channel();
        let mut state = self.state.lock();
        if state.end.is_none() {
            state.signals.add_probe(heard);
            state.wake();
        }
        answer
    }

    /// The peer has ponged.
    pub fn alive(&self) {
        self.state.lock().signals.answer_probes();
    }

    /// Why its peer was refused, if it was, and sent away.
    pub fn refusal(&self) -> Option<Refusal> {
        self.state.lock().refusal.as_deref().cloned()
    }

    /// Whether it was closed because its peer did not read.
    pub fn has_overflowed(&self) -> bool {
        self.state.lock().overflowed
    }

    /// Whether it was closed, by whomever.
    pub fn is_closed(&self) -> bool {
        self.state.lock().end.is_some()
    }

    /// What to do next; keeps the waker where there is nothing. `room` tells whether the edge could take a message
    /// now: what is no message comes through without.
    pub fn poll_next(&self, cx: &Context<'_>, room: bool) -> Poll<Outgoing> {
        let mut state = self.state.lock();
        if state.signals.take_recheck() {
            return Poll::Ready(Outgoing::Recheck);
        }
        if state.end.is_some() && !std::mem::replace(&mut state.end_told, true) {
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

    /// Closes for good and empties: the transport is gone. Returns how many forwards will not be written. Once these are
    /// booked, [`Outbox::rechecked`] tells those who wait for all that was due.
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
