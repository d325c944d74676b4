//! The server's side of a [`Driver`]: settings and hooks answer its questions, and rate limits apply.
//!
//! The rules are in [`core::driver`](crate::core::driver). This module adds the shared state of the server, the pending
//! answer, the clock and the peer's rate limits. The transport's task reads and writes texts.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use crate::core::driver::{Driver, Edge, Expired, Output, earlier};
use crate::core::outbox::{End, Outbox};
use crate::core::peer::Peer;
use crate::core::session::{Answer, Question, Session, Step};
use crate::observe::incidents::Incident;
use crate::observe::quoted::Quoted;
use crate::protocol::DeviceId;
use crate::protocol::refusal::Refusal;
use crate::server::refusal_log::RefusalRecord;
use crate::server::resolver::Resolved;
use crate::server::settings::Settings;
use crate::server::shared::Shared;
use crate::server::throttle::{Sent, Strict, Throttle};
use crate::server::time::timers::Timer;

/// Drives one connection.
pub(super) struct SessionDriver<P: Session> {
    /// The driver of the session.
    pub(super) driver: Driver<P>,
    /// The parts that answer it.
    pub(super) edge: ServerEdge,
    /// Wakes the task at the next deadline.
    timer: Timer,
}

/// The side of a [`SessionDriver`] that the session needs.
pub(super) struct ServerEdge {
    /// The state that all connections share.
    pub(super) shared: Arc<Shared>,
    /// The settings that the connection began with.
    pub(super) settings: Arc<Settings>,
    /// The peer of the session.
    pub(super) peer: Arc<Peer>,
    /// The queue of messages to the peer.
    outbox: Arc<Outbox>,
    /// The pending answer to the session's question.
    question: Option<PendingAnswer>,
    /// The peer's rate limits.
    throttle: Throttle,
    /// The time of this poll, once it was needed.
    now: Option<Instant>,
}

/// An answer that a hook or a probe still owes.
type PendingAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Edge for ServerEdge {
    /// A poll that only writes does not read the clock.
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(|| self.shared.clock.now())
    }

    fn ask(&mut self, question: Question) -> Option<Answer> {
        match self.shared.resolve(question, &self.peer, &self.outbox) {
            Resolved::Ready(answer) => Some(answer),
            Resolved::Pending(answer) => {
                self.question = Some(answer);
                None
            }
        }
    }

    fn count_error(&mut self, withheld: Option<&Refusal>) -> Option<Refusal> {
        if let Some(refusal) = withheld {
            self.shared.incidents.count(Incident::ErrorWithheld);
            let reason = refusal.text();
            let line = format_args!("no error is sent to {self}: {}", Quoted(&reason));
            self.shared.log_refusal(&RefusalRecord { reason: Some(&reason), ..self.refused("error_withheld", line) });
        }
        let now = self.now();
        self.throttle.spend(&self.settings.limits, Strict::Error, now).err()
    }
}

impl ServerEdge {
    /// The role of the peer, for the log.
    pub(super) fn role(&self) -> &'static str {
        self.peer.role.as_str()
    }

    /// A record about this peer.
    fn refused<'a>(&'a self, event: &'static str, line: fmt::Arguments<'a>) -> RefusalRecord<'a> {
        RefusalRecord { role: Some(self.role()), peer: Some(&*self.peer), ..RefusalRecord::new(event, line) }
    }
}

/// Formats the peer for the log: `client 127.0.0.1:1234`.
impl std::fmt::Display for ServerEdge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.peer.role.as_str(), self.peer)
    }
}

impl<P: Session> SessionDriver<P> {
    /// Registers the connection in the hub.
    pub(super) fn new(shared: Arc<Shared>, session: P, has_pings: bool, now: Instant) -> Self {
        let settings = shared.settings();
        let edge = ServerEdge {
            peer: Arc::clone(&session.context().peer),
            outbox: Arc::clone(&session.context().outbox),
            question: None,
            throttle: Throttle::new(&settings.limits, now),
            now: None,
            shared,
            settings,
        };
        Self { driver: Driver::new(session, has_pings, now), timer: Timer::new(&edge.shared.timers), edge }
    }

    /// Begins a poll of the task: its time is read again when it is needed.
    pub(super) fn begin_poll(&mut self) {
        self.edge.now = None;
    }

    /// Handles a step: counts an error, or resolves a question.
    pub(super) fn handle_step(&mut self, step: Step) {
        self.driver.handle_step(step, &mut self.edge);
    }

    /// Counts messages or bytes. Above their rate, the peer is not read until the bucket has recovered.
    pub(super) fn count(&mut self, sent: Sent) {
        let now = self.edge.now();
        if let Some(until) = self.edge.throttle.delay(&self.edge.settings.limits, sent, now) {
            self.driver.delay_reading(until);
        }
    }

    /// Counts a ping. Above their rate, the peer is refused.
    pub(super) fn count_ping(&mut self) {
        let now = self.edge.now();
        if let Err(refusal) = self.edge.throttle.spend(&self.edge.settings.limits, Strict::Ping, now) {
            self.driver.refuse(&refusal);
        }
    }

    /// Whether the transport may read the next input. If not, the task is woken when it may.
    pub(super) fn wants_read(&mut self, cx: &TaskContext<'_>) -> bool {
        self.driver.wants_read(cx, &mut self.edge)
    }

    /// Handles a text of the peer.
    pub(super) fn feed(&mut self, text: &str) {
        self.driver.handle_text(text, &mut self.edge);
    }

    /// Polls the pending question. Returns true if it was answered.
    #[inline]
    pub(super) fn poll_answer(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Some(question) = &mut self.edge.question else { return false };
        let Poll::Ready(answer) = question.as_mut().poll(cx) else { return false };
        self.edge.question = None;
        self.driver.handle_answer(answer, &mut self.edge);
        true
    }

    /// Polls the next output. The end of the connection is logged; the ordinary ends 1000 and 1001 are not.
    pub(super) fn poll_output(&mut self, cx: &TaskContext<'_>, room: bool) -> Poll<Output> {
        let output = self.driver.poll_output(cx, room, &mut self.edge);
        if let Poll::Ready(Output::End(End::Close { code, reason })) = &output
            && !matches!(code, 1000 | 1001)
        {
            let line = format_args!("closing {}: {} [{code}]", self.edge, Quoted(reason));
            let device_id = self.driver.session().device_id().map(DeviceId::as_str);
            let refused = RefusalRecord { device_id, ..self.edge.refused("peer_closed", line) };
            self.edge.shared.log_refusal(&RefusalRecord { code: Some(*code), reason: Some(reason), ..refused });
            self.edge.shared.audit_end(&self.edge.peer, device_id, *code, reason);
        }
        output
    }

    /// Handles an expired deadline, or sets the timer to the earlier one of the driver's and `transport`. Returns true
    /// if the driver's has expired.
    ///
    /// Input only moves a deadline to a later time. The timer then stays as it is, and is set again after it has fired.
    #[inline]
    pub(super) fn check_deadlines(&mut self, cx: &mut TaskContext<'_>, transport: Option<Instant>) -> bool {
        if !self.driver.has_new_timeout() && transport.is_none() && self.timer.is_pending() {
            return false;
        }
        let Some(due) = earlier(self.driver.poll_timeout(), transport) else { return false };
        let real = self.edge.shared.clock.real(due);
        if real.is_some_and(|real| self.timer.fires_by(real)) {
            return false;
        }
        if due <= self.edge.now() {
            return self.handle_timeout();
        }
        // No time is known while the clock is frozen. The change of the clock will wake the task.
        if let Some(real) = real {
            self.timer.set(real, cx.waker());
        }
        false
    }

    /// Handles the deadline that has expired. Returns whether one has.
    fn handle_timeout(&mut self) -> bool {
        let expired = self.driver.handle_timeout(&mut self.edge);
        match expired {
            Some(Expired::Close) => {
                let edge = &self.edge;
                let what = "no closing handshake in time";
                tracing::debug!(event = "close_timeout", role = edge.role(), peer = %edge.peer, "dropping {edge}: {what}");
            }
            Some(Expired::Pong) => {
                let line = format_args!("dropping {}: no pong", self.edge);
                let device_id = self.driver.session().device_id().map(DeviceId::as_str);
                let silent = RefusalRecord { device_id, ..self.edge.refused("peer_silent", line) };
                self.edge.shared.log_refusal(&silent);
            }
            Some(Expired::Write | Expired::Session | Expired::Grant | Expired::Delay | Expired::Ping) | None => {}
        }
        expired.is_some()
    }

    /// Ends the connection if the server's time for closing handshakes is over.
    pub(super) fn abort_if_over(&mut self) {
        if self.edge.shared.over.is_cancelled() {
            self.driver.abort();
        }
    }

    /// Logs that the transport has failed.
    pub(super) fn log_loss(&self, error: &dyn std::fmt::Display) {
        let edge = &self.edge;
        let (role, peer) = (edge.role(), &*edge.peer);
        tracing::debug!(event = "connection_lost", role, peer = %peer, reason = %error, "lost {edge}: {error}");
    }
}
