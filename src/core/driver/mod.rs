//! Drives the connection of one peer, without I/O: its session, the end, the deadlines, pings, and the books.
//!
//! All transports share this type: a WebSocket, local sockets, polled clients, and tests and benchmarks without
//! sockets. A transport reads, writes and wakes; the driver decides. The names follow sans-I/O crates such as
//! `quinn-proto`:
//!
//! - Input goes into `handle_*`. Before each input, the transport asks [`Driver::wants_read`].
//! - [`Driver::poll_output`] returns the next thing to write. The transport reports its progress with
//!   [`Driver::on_bytes_written`], [`Driver::on_flushed`] and [`Driver::on_blocked`].
//! - [`Driver::poll_timeout`] tells when to call [`Driver::handle_timeout`].
//! - [`Driver::on_pending`] ends a poll in which nothing is left to do.
//! - [`Driver::phase`] tells how far the end of the connection has come. At [`Phase::Done`] the transport drops both.
//!
//! The pending answer to a question, such as a hook, stays with the [`Edge`]. So does the clock, which is read only when
//! a time is needed.
//!
//! Creating a driver registers the connection in the hub. Dropping it, a panic of its task included, ends the session,
//! settles the ledger and removes the connection.

mod end;
mod output;

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Instant;

pub use self::end::{Closed, Expired, Phase, earlier};
pub use self::output::Output;
use crate::core::hub::ConnectionId;
use crate::core::outbox::{MESSAGE_OVERHEAD, Outbox};
use crate::core::session::{Answer, ClientSession, Question, Session, Step};
use crate::protocol::refusal::Refusal;

/// Texts of one sender in one poll, after which it yields to a receiver that has not taken as many.
pub const BURST: usize = 32;

/// The caller's side of a driver: tells the time, answers questions, and counts errors.
pub trait Edge {
    /// Returns the time of this poll. The edge reads the clock at the first call of a poll only.
    fn now(&mut self) -> Instant;

    /// Answers a question. Without an answer now, the caller passes it to [`Driver::handle_answer`] later.
    fn ask(&mut self, question: Question) -> Option<Answer>;

    /// Counts a text that was an error of the peer. `withheld` is the refusal that the peer was not sent
    /// (docs/protocol.md 4.1.4).
    ///
    /// Returns the refusal that ends the connection, if the peer has made too many errors.
    fn count_error(&mut self, withheld: Option<&Refusal>) -> Option<Refusal>;
}

/// Drives one connection.
#[allow(clippy::struct_excessive_bools, reason = "they come and go independently of each other")]
pub struct Driver<P: Session + ?Sized> {
    /// Registration in the hub.
    connection_id: ConnectionId,
    /// How far the end of the connection has come.
    phase: Phase,
    /// Time of the last input.
    last_received: Instant,
    /// Time of the ping that has no answer yet.
    pinged_at: Option<Instant>,
    /// Whether the peer is not read.
    paused: bool,
    /// Time before which the peer is not read, since it has sent too much.
    delayed_until: Option<Instant>,
    /// Time since which the transport has taken nothing of what is written to it.
    stuck_since: Option<Instant>,
    /// Time since which the transport has not taken all that is written to it.
    blocked_since: Option<Instant>,
    /// Forwards that were handed out and are not flushed.
    unflushed: u64,
    /// Time at which the grant of the peer expires.
    expires: Option<Instant>,
    /// Whether the transport has pings.
    has_pings: bool,
    /// Whether the timeout of an open connection may be an earlier one than before.
    new_timeout: bool,
    /// Whether the session has rechecked, so that [`Outbox::rechecked`] is due.
    rechecking: bool,
    /// Texts that wait while [`Session::holds_texts`].
    held: VecDeque<String>,
    /// End of the input behind them.
    ending: Option<Closed>,
    /// Size of `held` in bytes, with [`MESSAGE_OVERHEAD`] for each.
    held_bytes: usize,
    /// The session.
    session: P,
}

impl<P: Session> Driver<P> {
    /// Registers the connection in the hub, before its first message is read.
    ///
    /// With `has_pings`, a peer that answers no ping is dropped. Without, an open connection counts as alive.
    pub fn new(session: P, has_pings: bool, now: Instant) -> Self {
        let context = session.context();
        Self {
            connection_id: context.hub.add_connection(&context.outbox),
            phase: Phase::Open,
            last_received: now,
            pinged_at: None,
            paused: false,
            delayed_until: None,
            stuck_since: None,
            blocked_since: None,
            unflushed: 0,
            expires: context.peer.expires,
            has_pings,
            new_timeout: true,
            rechecking: false,
            held: VecDeque::new(),
            ending: None,
            held_bytes: 0,
            session,
        }
    }
}

impl<P: Session + ?Sized> Driver<P> {
    /// Returns the session.
    pub fn session(&self) -> &P {
        &self.session
    }

    /// Returns the queue of messages to the peer.
    pub fn outbox(&self) -> &Outbox {
        &self.session.context().outbox
    }

    // Input -----------------------------------------------------------------------------------------------------------

    /// Returns whether the transport may read the next input. If not, it leaves its socket unread (backpressure), and
    /// the task is woken when it may read.
    ///
    /// A transport asks before each input, not once for each poll. Texts that have waited for an answer are handled
    /// first. While the peer is not read, pings are not answered, an exception to docs/protocol.md 3.12; all else goes
    /// on: writes, pings of the server, deadlines, answers and the end.
    #[inline]
    pub fn wants_read(&mut self, cx: &Context<'_>, edge: &mut impl Edge) -> bool {
        let wants = !self.is_open() || self.has_room(cx, edge);
        if wants == self.paused {
            // Keepalive counts only time in which the server reads.
            self.handle_input(edge.now());
            self.paused = !wants;
        }
        wants
    }

    /// Returns whether the next text can be handled or held. Handles held texts first, and an end behind them.
    #[inline]
    fn has_room(&mut self, cx: &Context<'_>, edge: &mut impl Edge) -> bool {
        loop {
            if self.session.holds_texts() {
                return self.ending.is_none() && self.held_bytes < self.session.context().rules.max_held_bytes;
            }
            if self.delayed_until.is_some() || self.session.poll_credit(cx).is_pending() {
                return false;
            }
            let Some(text) = self.held.pop_front() else { break };
            self.held_bytes -= text.len() + MESSAGE_OVERHEAD;
            self.handle_text(&text, edge);
        }
        if let Some(closed) = self.ending.take() {
            self.handle_closed(closed, edge);
        }
        true
    }

    /// Returns whether the peer is not read.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Stops reading until this time, since the peer has sent too much.
    pub fn delay_reading(&mut self, until: Instant) {
        self.delayed_until = self.delayed_until.max(Some(until));
        self.new_timeout = true;
    }

    /// Polls for credit, then handles one text: for a transport that has a text to offer, such as an HTTP request.
    ///
    /// `Poll::Pending` means that the text was not handled, and that the task is woken when it may be tried again. The
    /// outcome is in the outbox of the session: an error, a refusal, or nothing.
    pub fn poll_text(&mut self, text: &str, cx: &Context<'_>, edge: &mut impl Edge) -> Poll<()> {
        if !self.wants_read(cx, edge) {
            return Poll::Pending;
        }
        self.handle_input(edge.now());
        self.handle_text(text, edge);
        Poll::Ready(())
    }

    /// Returns whether the task should yield after a burst of texts, because the receiver has not taken the last ones.
    ///
    /// On one thread, a receiver that reads can take a burst only when its sender yields.
    pub fn should_yield(&self) -> bool {
        self.session.backlog() >= BURST
    }

    /// Handles a step of the session: counts an error, or asks the question.
    ///
    /// An answer that is there at once goes back to the session. A session whose request named its device starts with
    /// a step.
    pub fn handle_step(&mut self, mut step: Step, edge: &mut impl Edge) {
        self.new_timeout = true;
        let too_many_errors = match &step {
            Step::Refused => edge.count_error(None),
            Step::Withheld(refusal) => edge.count_error(Some(refusal)),
            Step::Done | Step::Ask(_) => None,
        };
        if let Some(refusal) = too_many_errors {
            self.refuse(&refusal);
        }
        while let Step::Ask(question) = step {
            let Some(answer) = edge.ask(question) else { return };
            step = self.session.on_answer(answer, edge.now());
        }
    }

    /// Handles a text of the peer. It waits while [`Session::holds_texts`].
    pub fn handle_text(&mut self, text: &str, edge: &mut impl Edge) {
        if self.session.holds_texts() {
            self.held_bytes += text.len() + MESSAGE_OVERHEAD;
            self.held.push_back(text.to_owned());
            return;
        }
        let step = self.session.on_text(text, edge.now());
        if !matches!(step, Step::Done) {
            self.handle_step(step, edge);
        }
    }

    /// Handles the answer to the last question. [`Driver::wants_read`] then handles the texts that waited for it.
    pub fn handle_answer(&mut self, answer: Answer, edge: &mut impl Edge) {
        let step = self.session.on_answer(answer, edge.now());
        self.handle_step(step, edge);
    }

    /// Notes that the peer has sent something, whatever it is: it is alive.
    pub fn handle_input(&mut self, now: Instant) {
        self.last_received = now;
        // The next ping may be due before the answer to the last one was.
        self.new_timeout |= self.pinged_at.take().is_some();
    }

    /// Handles a pong: answers the probes of the peer.
    pub fn handle_pong(&mut self) {
        self.outbox().alive();
    }

    /// Handles a binary message: closes the connection (docs/protocol.md 4.3.5).
    pub fn handle_binary(&mut self) {
        self.session.on_binary();
    }

    /// Lets the session check the state that it waits for.
    fn handle_recheck(&mut self, edge: &mut impl Edge) {
        let step = self.session.on_recheck(edge.now());
        self.handle_step(step, edge);
    }
}

impl Driver<ClientSession> {
    /// Handles a payload of a polled client, which is connected to its device.
    ///
    /// # Errors
    /// The refusal, which the answer to the client's request carries. It counts as an error of the peer.
    pub fn handle_payload(&mut self, payload: &str, edge: &mut impl Edge) -> Result<(), Refusal> {
        let outcome = self.session.forward(payload, edge.now());
        if outcome.is_err()
            && let Some(too_many_errors) = edge.count_error(None)
        {
            self.refuse(&too_many_errors);
        }
        outcome
    }
}

impl<P: Session + ?Sized> Drop for Driver<P> {
    /// Ends the session, settles the ledger and leaves the hub, however the task ends.
    fn drop(&mut self) {
        self.session.leave();
        let context = self.session.context();
        let gone = context.outbox.drain() + self.unflushed;
        context.relay.ledger().count_gone(gone);
        self.session.on_gone(gone);
        context.hub.remove_connection(self.connection_id);
        // Last, so that a waiter finds the ledger settled and the connection gone.
        context.outbox.rechecked();
    }
}
