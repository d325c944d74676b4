//! Drives the session of one peer, without I/O: questions, texts that wait for an answer, and the end.
//!
//! The pump, the message pump and the tests without sockets share this type. They read, write, wake, and own the clock
//! and the pending answer. The names follow sans-I/O crates: input goes into `handle_*`, and the caller asks
//! [`Driver::deadline`] when to call again.

use std::collections::VecDeque;
use std::time::Instant;

use crate::core::session::{Answer, Question, Session, Step};
use crate::protocol::refusal::Refusal;

/// The caller's side of a driver: answers questions, and counts errors.
pub trait Edge {
    /// Answers a question. Without an answer now, the caller passes it to [`Driver::handle_answer`] later.
    fn ask(&mut self, question: Question) -> Option<Answer>;

    /// Counts a text that was an error of the peer. `withheld` is the refusal that the peer was not sent
    /// (docs/protocol.md 4.1.4).
    ///
    /// Returns the refusal that ends the connection, if the peer has made too many errors.
    fn count_error(&mut self, withheld: Option<&Refusal>, now: Instant) -> Option<Refusal>;
}

/// Drives one session.
pub struct Driver<P: ?Sized> {
    /// Texts that wait while [`Session::holds_texts`].
    held: VecDeque<String>,
    /// The size of `held` in bytes.
    held_bytes: usize,
    /// The session.
    session: P,
}

impl<P: Session> Driver<P> {
    /// Creates a driver.
    pub const fn new(session: P) -> Self {
        Self { held: VecDeque::new(), held_bytes: 0, session }
    }
}

impl<P: Session + ?Sized> Driver<P> {
    /// Handles a step of the session: counts an error, or asks the question.
    ///
    /// An answer that is there at once goes back to the session.
    pub fn handle_step(&mut self, mut step: Step, now: Instant, edge: &mut impl Edge) {
        let too_many_errors = match &step {
            Step::Refused => edge.count_error(None, now),
            Step::Withheld(refusal) => edge.count_error(Some(refusal), now),
            Step::Done | Step::Ask(_) => None,
        };
        if let Some(refusal) = too_many_errors
            && !self.session.outbox().is_closed()
        {
            self.session.disconnect(&refusal);
        }
        while let Step::Ask(question) = step {
            let Some(answer) = edge.ask(question) else { return };
            step = self.session.on_answer(answer, now);
        }
    }

    /// Handles a text of the peer. It waits while [`Driver::holds_texts`].
    pub fn handle_text(&mut self, text: &str, now: Instant, edge: &mut impl Edge) {
        if self.session.holds_texts() {
            self.held_bytes += text.len();
            self.held.push_back(text.to_owned());
            return;
        }
        let step = self.session.on_text(text, now);
        self.handle_step(step, now, edge);
    }

    /// Handles the answer to the last question, then the texts that waited for it.
    pub fn handle_answer(&mut self, answer: Answer, now: Instant, edge: &mut impl Edge) {
        let step = self.session.on_answer(answer, now);
        self.handle_step(step, now, edge);
        while !self.session.holds_texts() {
            let Some(text) = self.held.pop_front() else { break };
            self.held_bytes -= text.len();
            self.handle_text(&text, now, edge);
        }
    }

    /// Lets the session check the state that it waits for. Call it on
    /// [`Outgoing::Recheck`](crate::core::outbox::Outgoing::Recheck), and when [`Driver::deadline`] has passed.
    pub fn handle_recheck(&mut self, now: Instant, edge: &mut impl Edge) {
        let step = self.session.on_recheck(now);
        self.handle_step(step, now, edge);
    }

    /// Handles a binary message: closes the connection (docs/protocol.md 4.3.5).
    pub fn handle_binary(&mut self) {
        self.session.on_binary();
    }

    /// Ends the session, because its outbox has closed or its transport has ended.
    pub fn leave(&mut self) {
        self.session.leave();
    }

    /// Refuses the peer, with a refusal that closes the connection.
    pub fn disconnect(&mut self, refusal: &Refusal) {
        self.session.disconnect(refusal);
    }

    /// Returns whether further texts have to wait for an answer.
    pub fn holds_texts(&self) -> bool {
        self.session.holds_texts()
    }

    /// Returns whether the texts that wait have reached this number or this size in bytes.
    ///
    /// The transport must then stop reading (backpressure).
    pub fn holds_enough(&self, messages: usize, bytes: usize) -> bool {
        self.held.len() >= messages || self.held_bytes >= bytes
    }

    /// Returns whether the peer has sent `register` or `connect`.
    pub fn is_introduced(&self) -> bool {
        self.session.is_introduced()
    }

    /// Returns the latest time for the next [`Driver::handle_recheck`].
    pub fn deadline(&self) -> Option<Instant> {
        self.session.deadline()
    }
}
