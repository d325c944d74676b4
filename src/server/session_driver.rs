//! Drives the session of one peer, independent of the transport.
//!
//! The driver owns the session, its pending question, the texts that wait for the answer, and the peer's rate limits.
//! The transport's task reads and writes texts.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use crate::core::outbox::{End, Outbox};
use crate::core::peer::Peer;
use crate::core::session::{Answer, Context, Session, Step};
use crate::observe::incidents::Incident;
use crate::server::resolver::Resolved;
use crate::server::shared::Shared;
use crate::server::throttle::{Sent, Throttle};

/// Drives one session.
pub(super) struct SessionDriver<P> {
    /// The state that all connections share.
    pub(super) shared: Arc<Shared>,
    /// The peer of the session.
    pub(super) peer: Arc<Peer>,
    /// The queue of messages to the peer.
    pub(super) outbox: Arc<Outbox>,
    /// The session.
    pub(super) session: P,
    /// The pending answer to the session's question.
    question: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    /// Texts that wait while [`Session::holds_texts`].
    held: VecDeque<String>,
    /// The size of `held` in bytes.
    held_bytes: usize,
    /// The peer's rate limits.
    throttle: Throttle,
}

impl<P: Session> SessionDriver<P> {
    /// Creates a driver without a pending question.
    pub(super) fn new(shared: Arc<Shared>, context: &Context, session: P, now: Instant) -> Self {
        Self {
            peer: Arc::clone(&context.peer),
            outbox: Arc::clone(&context.outbox),
            session,
            question: None,
            held: VecDeque::new(),
            held_bytes: 0,
            throttle: Throttle::new(&shared.config.limits, now),
            shared,
        }
    }

    /// Handles a step: counts an error, or resolves a question. An answer that is ready is fed back at once.
    pub(super) fn take(&mut self, mut step: Step, now: Instant) {
        if let Step::Withheld(refusal) = &step {
            self.shared.incidents.count(Incident::ErrorWithheld);
            tracing::info!("no error is sent to {} {}: {:?}", self.peer.role.as_str(), self.peer, refusal.text());
        }
        if matches!(step, Step::Refused | Step::Withheld(_)) {
            self.spend(Sent::Error, now);
        }
        while let Step::Ask(question) = step {
            match self.shared.resolve(question, &self.peer) {
                Resolved::Ready(answer) => step = self.session.on_answer(answer, now),
                Resolved::Pending(answer) => {
                    self.question = Some(answer);
                    return;
                }
            }
        }
    }

    /// Counts an input against the rate limits. Returns false if the peer exceeds them; the session is then closed.
    pub(super) fn spend(&mut self, sent: Sent, now: Instant) -> bool {
        let Err(refusal) = self.throttle.spend(&self.shared.config.limits, sent, now) else { return true };
        if !self.outbox.is_closed() {
            self.session.disconnect(&refusal);
        }
        false
    }

    /// Feeds the session a text.
    pub(super) fn feed(&mut self, text: &str, now: Instant) {
        let step = self.session.on_text(text, now);
        self.take(step, now);
    }

    /// Queues a text while [`Session::holds_texts`].
    pub(super) fn hold(&mut self, text: String) {
        self.held_bytes += text.len();
        self.held.push_back(text);
    }

    /// Whether the queue of held texts is full. The transport must then stop reading (backpressure).
    ///
    /// Pings are not read either in that time, an exception to docs/protocol.md 3.12. It ends at the latest with the
    /// hook's timeout.
    pub(super) fn holds_enough(&self) -> bool {
        let limits = &self.shared.config.limits;
        self.held.len() >= limits.outbox_messages || self.held_bytes >= limits.outbox_bytes
    }

    /// Whether a question is pending.
    pub(super) fn is_asking(&self) -> bool {
        self.question.is_some()
    }

    /// Polls the pending question. Returns true if it was answered.
    pub(super) fn poll_answer(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let Some(question) = &mut self.question else { return false };
        let Poll::Ready(answer) = question.as_mut().poll(cx) else { return false };
        self.question = None;
        let step = self.session.on_answer(answer, now);
        self.take(step, now);
        while !self.session.holds_texts() {
            let Some(text) = self.held.pop_front() else { break };
            self.held_bytes -= text.len();
            self.feed(&text, now);
        }
        true
    }

    /// Lets the session leave, because the outbox has closed. An overflow counts as an incident.
    pub(super) fn on_closing(&mut self) {
        self.session.leave();
        if self.outbox.has_overflowed() {
            self.shared.incidents.count(Incident::SlowConsumer);
        }
    }

    /// Logs the close code and reason. The ordinary ends 1000 and 1001 are not logged.
    pub(super) fn log_end(&self, end: &End) {
        if let End::Close { code, reason } = end
            && !matches!(code, 1000 | 1001)
        {
            tracing::info!("closing {} {}: {reason:?} [{code}]", self.peer.role.as_str(), self.peer);
        }
    }

    /// Lets the session recheck the state it waits for.
    pub(super) fn recheck(&mut self, now: Instant) {
        let step = self.session.on_recheck(now);
        self.take(step, now);
    }
}
