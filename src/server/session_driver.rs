//! Drives the session of one peer for a transport: settings and hooks answer its questions, and rate limits apply.
//!
//! The rules are in [`core::driver`](crate::core::driver). This module adds the shared state of the server, the pending
//! answer and the peer's rate limits. The transport's task reads and writes texts.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use crate::core::driver::{Driver, Edge};
use crate::core::outbox::{End, Outbox};
use crate::core::peer::Peer;
use crate::core::session::{Answer, Context, Question, Session, Step};
use crate::observe::incidents::Incident;
use crate::protocol::refusal::Refusal;
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
    /// The session, and the texts that wait for its answer.
    pub(super) session: Driver<P>,
    /// The pending answer to the session's question.
    question: Option<PendingAnswer>,
    /// The peer's rate limits.
    throttle: Throttle,
}

/// An answer that a hook or a probe still owes.
type PendingAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// The parts of a [`SessionDriver`] that the session needs.
struct ServerEdge<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a Arc<Peer>,
    question: &'a mut Option<PendingAnswer>,
    throttle: &'a mut Throttle,
}

impl Edge for ServerEdge<'_> {
    fn ask(&mut self, question: Question) -> Option<Answer> {
        match self.shared.resolve(question, self.peer) {
            Resolved::Ready(answer) => Some(answer),
            Resolved::Pending(answer) => {
                *self.question = Some(answer);
                None
            }
        }
    }

    fn count_error(&mut self, withheld: Option<&Refusal>, now: Instant) -> Option<Refusal> {
        if let Some(refusal) = withheld {
            self.shared.incidents.count(Incident::ErrorWithheld);
            tracing::info!("no error is sent to {} {}: {:?}", self.peer.role.as_str(), self.peer, refusal.text());
        }
        self.throttle.spend(&self.shared.config.limits, Sent::Error, now).err()
    }
}

impl<P: Session> SessionDriver<P> {
    /// Creates a driver without a pending question.
    pub(super) fn new(shared: Arc<Shared>, context: &Context, session: P, now: Instant) -> Self {
        Self {
            peer: Arc::clone(&context.peer),
            outbox: Arc::clone(&context.outbox),
            session: Driver::new(session),
            question: None,
            throttle: Throttle::new(&shared.config.limits, now),
            shared,
        }
    }

    /// Splits the driver into the session and its edge.
    fn split(&mut self) -> (&mut Driver<P>, ServerEdge<'_>) {
        let Self { shared, peer, session, question, throttle, .. } = self;
        (session, ServerEdge { shared, peer, question, throttle })
    }

    /// Handles a step: counts an error, or resolves a question.
    pub(super) fn take(&mut self, step: Step, now: Instant) {
        let (session, mut edge) = self.split();
        session.handle_step(step, now, &mut edge);
    }

    /// Counts an input against the rate limits. Returns false if the peer exceeds them; the session is then closed.
    pub(super) fn spend(&mut self, sent: Sent, now: Instant) -> bool {
        let Err(refusal) = self.throttle.spend(&self.shared.config.limits, sent, now) else { return true };
        if !self.outbox.is_closed() {
            self.session.disconnect(&refusal);
        }
        false
    }

    /// Feeds the session a text, or queues it while the session waits for an answer.
    pub(super) fn feed(&mut self, text: &str, now: Instant) {
        let (session, mut edge) = self.split();
        session.handle_text(text, now, &mut edge);
    }

    /// Whether the queue of held texts is full. The transport must then stop reading (backpressure).
    ///
    /// Pings are not read either in that time, an exception to docs/protocol.md 3.12. It ends at the latest with the
    /// hook's timeout.
    pub(super) fn holds_enough(&self) -> bool {
        let limits = &self.shared.config.limits;
        self.session.holds_enough(limits.outbox_messages, limits.outbox_bytes)
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
        let (session, mut edge) = self.split();
        session.handle_answer(answer, now, &mut edge);
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
        let (session, mut edge) = self.split();
        session.handle_recheck(now, &mut edge);
    }
}
