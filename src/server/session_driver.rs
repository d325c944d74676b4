//! One peer's dialogue with the house, whatever it came over: its session, the question that the session has asked, the
//! texts that wait for the answer, and what the peer may still send. Edges carry the texts.

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

pub(super) struct SessionDriver<P> {
    pub(super) shared: Arc<Shared>,
    pub(super) peer: Arc<Peer>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) session: P,
    /// The question the session has asked, and the answer to come.
    question: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    /// Texts that came while the session waits for an answer.
    held: VecDeque<String>,
    held_bytes: usize,
    /// What the peer may still send.
    throttle: Throttle,
}

impl<P: Session> SessionDriver<P> {
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

    /// Puts a session's question on its way; feeds it what it can be told at once.
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

    /// What the peer has sent counts. Beyond what it may send it is told, and sent away.
    pub(super) fn spend(&mut self, sent: Sent, now: Instant) -> bool {
        let Err(refusal) = self.throttle.spend(&self.shared.config.limits, sent, now) else { return true };
        if !self.outbox.is_closed() {
            self.session.disconnect(&refusal);
        }
        false
    }

    /// A text that the session takes now.
    pub(super) fn feed(&mut self, text: &str, now: Instant) {
        let step = self.session.on_text(text, now);
        self.take(step, now);
    }

    /// A text that has to wait, since [`Session::holds_texts`].
    pub(super) fn hold(&mut self, text: String) {
        self.held_bytes += text.len();
        self.held.push_back(text);
    }

    /// Whether texts are held back, and enough of them: then the peer has to wait, and its pings too. That ends with
    /// the deadline of the hook.
    pub(super) fn holds_enough(&self) -> bool {
        let limits = &self.shared.config.limits;
        self.held.len() >= limits.outbox_messages || self.held_bytes >= limits.outbox_bytes
    }

    /// Whether a question is under way.
    pub(super) fn is_asking(&self) -> bool {
        self.question.is_some()
    }

    /// Goes on where the question has been answered.
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

    /// Logs that the server ends the connection, and why, where a peer gave the reason.
    pub(super) fn log_end(&self, end: &End) {
        if let End::Close { code, reason } = end
            && !matches!(code, 1000 | 1001)
        {
            tracing::info!("closing {} {}: {reason:?} [{code}]", self.peer.role.as_str(), self.peer);
        }
    }

    /// Lets the session look again at what it waits for.
    pub(super) fn recheck(&mut self, now: Instant) {
        let step = self.session.on_recheck(now);
        self.take(step, now);
    }
}
