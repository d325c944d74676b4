//! The porter: carries whole texts between a session and a wire that has no frames, no pings and no goodbye of its own.
//! What the pump is to a WebSocket, without all that a WebSocket is.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::answers::Asked;
use super::throttle::{Sent, Throttle};
use super::websocket;
use crate::hub::Ticket;
use crate::incidents::Incident;
use crate::outbox::{End, Outbox, Outgoing};
use crate::peer::Peer;
use crate::protocol::Text;
use crate::refusal::Refusal;
use crate::session::{Answer, Context, Session, Step};

/// Rounds in one poll, before other tasks have their turn.
const ROUNDS: usize = 64;

/// What came over a wire.
pub(super) enum Came {
    /// A text.
    Text(String),
    /// What is none.
    Wrong(Refusal),
    /// More than a message may have.
    TooBig,
    /// The peer has hung up.
    Gone,
}

/// What texts go over.
pub(super) trait Wire: Send + Unpin {
    /// The next thing that came.
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Came>;

    /// Takes a message, and books it: `forward` tells whether a peer's forward is in it.
    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text, forward: bool) -> Poll<io::Result<()>>;

    /// Nothing comes after this.
    fn end(&mut self, end: &End);

    /// When the peer is given up that has not been heard of.
    fn deadline(&self) -> Option<Instant>;
}

/// One peer's task.
pub(super) struct Porter<W, P> {
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    outbox: Arc<Outbox>,
    ticket: Option<Ticket>,
    session: P,
    wire: W,
    question: Option<Pin<Box<dyn Future<Output = Answer> + Send>>>,
    /// What the wire has had no room for, since when.
    pending: Option<(Text, bool, Instant)>,
    /// Texts that came while the session waits for an answer.
    held: VecDeque<String>,
    held_bytes: usize,
    throttle: Throttle,
    /// The outbox has closed: what waits there has to be taken by then.
    close_by: Option<Instant>,
    over: bool,
    looking: bool,
    timer: Pin<Box<Sleep>>,
}

impl<W: Wire, P: Session + Unpin> Porter<W, P> {
    /// Lets the peer into the hub, and takes the first step.
    pub(super) fn new(shared: Arc<Shared>, context: &Context, session: P, first: Step, wire: W) -> Self {
        let ticket = shared.hub.admit(&context.outbox);
        if ticket.is_none() {
            context.outbox.finish(None, End::close(1001, "server stopping"));
        }
        let now = shared.clock.now();
        let throttle = Throttle::new(&shared.config.limits, now);
        let mut porter = Self {
            peer: Arc::clone(&context.peer),
            outbox: Arc::clone(&context.outbox),
            ticket,
            session,
            wire,
            question: None,
            pending: None,
            held: VecDeque::new(),
            held_bytes: 0,
            throttle,
            close_by: None,
            over: false,
            looking: false,
            timer: Box::pin(tokio::time::sleep(std::time::Duration::ZERO)),
            shared,
        };
        porter.take(first, now);
        porter
    }

    /// Cancelled when the time for goodbyes is over.
    pub(super) fn time_is_over(&self) -> CancellationToken {
        self.shared.over.clone()
    }

    fn take(&mut self, mut step: Step, now: Instant) {
        if matches!(step, Step::Refused) {
            self.spend(Sent::Error, now);
        }
        while let Step::Ask(question) = step {
            match self.shared.answer(question, &self.peer) {
                Asked::Now(answer) => step = self.session.on_answer(answer, now),
                Asked::Later(answer) => {
                    self.question = Some(answer);
                    return;
                }
            }
        }
    }

    fn spend(&mut self, sent: Sent, now: Instant) -> bool {
        let Err(refusal) = self.throttle.spend(&self.shared.config.limits, sent, now) else { return true };
        if !self.outbox.is_closed() {
            self.session.expel(&refusal);
        }
        false
    }

    /// Hands on what waits in the outbox, as far as the wire takes it.
    fn write(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let mut busy = false;
        while !self.over {
            if let Some((text, forward, _)) = &self.pending {
                match self.wire.poll_send(cx, text, *forward) {
                    Poll::Ready(Ok(())) => self.pending = None,
                    Poll::Ready(Err(error)) => {
                        tracing::debug!("lost {} {}: {error}", self.peer.role.as_str(), self.peer);
                        self.over = true;
                        return true;
                    }
                    Poll::Pending => {}
                }
            }
            let Poll::Ready(outgoing) = self.outbox.poll_next(cx, self.pending.is_none()) else { break };
            busy = true;
            match outgoing {
                Outgoing::Message { text, forward } => self.pending = Some((text, forward, now)),
                // There are no pings here: whoever is connected is alive.
                Outgoing::Ping => self.outbox.alive(),
                Outgoing::Look => {
                    self.looking = true;
                    let step = self.session.on_look(now);
                    self.take(step, now);
                }
                Outgoing::Closing => {
                    self.session.leave();
                    if self.outbox.has_overflowed() {
                        self.shared.incidents.count(Incident::SlowConsumer);
                    }
                    self.close_by = Some(now + self.shared.config.limits.close_timeout);
                }
                Outgoing::End(end) => {
                    self.wire.end(&end);
                    self.over = true;
                }
            }
        }
        busy
    }

    fn hear_answer(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let Some(question) = &mut self.question else { return false };
        let Poll::Ready(answer) = question.as_mut().poll(cx) else { return false };
        self.question = None;
        let step = self.session.on_answer(answer, now);
        self.take(step, now);
        while !self.session.holds_texts() {
            let Some(text) = self.held.pop_front() else { break };
            self.held_bytes -= text.len();
            let step = self.session.on_text(&text, now);
            self.take(step, now);
        }
        true
    }

    fn read(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        // One text at a time, so that all directions have their turn.
        let limits = &self.shared.config.limits;
        let holds_enough = self.held.len() >= limits.outbox_messages || self.held_bytes >= limits.outbox_bytes;
        if self.over || self.close_by.is_some() || holds_enough {
            return false;
        }
        let Poll::Ready(came) = self.wire.poll_receive(cx) else { return false };
        match came {
            Came::Text(text) => {
                let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                if !self.spend(Sent::Message, now) || !self.spend(Sent::Bytes(bytes), now) {
                    return true;
                }
                if self.session.holds_texts() {
                    self.held_bytes += text.len();
                    self.held.push_back(text);
                } else {
                    let step = self.session.on_text(&text, now);
                    self.take(step, now);
                }
            }
            Came::Wrong(refusal) => self.session.expel(&refusal),
            Came::TooBig => {
                self.shared.incidents.count(Incident::Misbehaved);
                self.outbox.finish(None, websocket::too_big());
            }
            Came::Gone => {
                self.session.leave();
                self.over = true;
            }
        }
        true
    }

    /// Arms the timer for what is due next, and does what is due now.
    fn keep_time(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let write = self.pending.as_ref().and_then(|(_, _, since)| since.checked_add(self.write_timeout()));
        let gone = self.wire.deadline();
        let Some(due) = [write, gone, self.close_by, self.session.deadline()].into_iter().flatten().min() else {
            return false;
        };
        if due > now {
            let Some(due) = self.shared.clock.real(due) else { return false };
            if self.timer.is_elapsed() || due < self.timer.deadline() {
                self.timer.as_mut().reset(due);
            }
            return self.timer.as_mut().poll(cx).is_ready();
        }
        if self.close_by.is_some_and(|deadline| deadline <= now) {
            self.over = true;
        } else if write.is_some_and(|deadline| deadline <= now) {
            self.outbox.overrun();
            let lost = self.pending.take().map_or(0, |(_, forward, _)| u64::from(forward));
            self.shared.relay.ledger().lose(lost);
        } else if gone.is_some_and(|deadline| deadline <= now) {
            tracing::debug!("gave up {} {}", self.peer.role.as_str(), self.peer);
            self.shared.incidents.count(Incident::Silent);
            self.session.leave();
            self.over = true;
        } else {
            let step = self.session.on_look(now);
            self.take(step, now);
        }
        true
    }

    fn write_timeout(&self) -> std::time::Duration {
        self.shared.config.limits.write_timeout
    }
}

impl<W: Wire, P: Session + Unpin> Future for Porter<W, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let now = this.shared.clock.now();
        for _ in 0..ROUNDS {
            let mut busy = this.write(cx, now);
            busy |= this.hear_answer(cx, now);
            busy |= this.read(cx, now);
            busy |= this.keep_time(cx, now);
            if this.over {
                return Poll::Ready(());
            }
            if !busy {
                if std::mem::take(&mut this.looking) {
                    this.outbox.looked();
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<W, P> Drop for Porter<W, P> {
    /// However it ends, a panic included: the books are closed, and nobody holds on to it.
    fn drop(&mut self) {
        let pending = self.pending.take().map_or(0, |(_, forward, _)| u64::from(forward));
        let lost = self.outbox.abandon() + pending;
        self.shared.relay.ledger().lose(lost);
        if let Some(ticket) = self.ticket {
            self.shared.hub.dismiss(ticket);
        }
        self.outbox.looked();
    }
}
