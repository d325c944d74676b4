//! The porter: carries whole texts between a session and a wire that has no frames, no pings and no goodbye of its own.
//! What the pump is to a WebSocket, without all that a WebSocket is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use crate::core::hub::Ticket;
use crate::core::outbox::{End, Outgoing};
use crate::core::session::{Context, Session, Step};
use crate::observe::incidents::Incident;
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;
use crate::server::session_driver::Dialogue;
use crate::server::shared::Shared;
use crate::server::throttle::Sent;
use crate::server::time::timers::Bell;

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
    ticket: Ticket,
    dialogue: Dialogue<P>,
    wire: W,
    /// What the wire has had no room for, since when.
    pending: Option<(Text, bool, Instant)>,
    /// The outbox has closed: what waits there has to be taken by then.
    close_by: Option<Instant>,
    over: bool,
    looking: bool,
    bell: Bell,
}

impl<W: Wire, P: Session + Unpin> Porter<W, P> {
    /// Lets the peer into the hub, and takes the first step.
    pub(super) fn new(shared: Arc<Shared>, context: &Context, session: P, first: Step, wire: W) -> Self {
        let ticket = shared.hub.admit(&context.outbox);
        let (now, bell) = (shared.clock.now(), Bell::new(&shared.alarm));
        let mut porter = Self {
            ticket,
            dialogue: Dialogue::new(shared, context, session, now),
            wire,
            pending: None,
            close_by: None,
            over: false,
            looking: false,
            bell,
        };
        porter.dialogue.take(first, now);
        porter
    }

    /// Hands on what waits in the outbox, as far as the wire takes it.
    fn write(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let mut busy = false;
        while !self.over {
            if let Some((text, forward, _)) = &self.pending {
                match self.wire.poll_send(cx, text, *forward) {
                    Poll::Ready(Ok(())) => self.pending = None,
                    Poll::Ready(Err(error)) => {
                        tracing::debug!("lost {} {}: {error}", self.dialogue.peer.role.as_str(), self.dialogue.peer);
                        self.over = true;
                        return true;
                    }
                    Poll::Pending => {}
                }
            }
            let Poll::Ready(outgoing) = self.dialogue.outbox.poll_next(cx, self.pending.is_none()) else { break };
            busy = true;
            match outgoing {
                Outgoing::Message { text, forward } => self.pending = Some((text, forward, now)),
                // There are no pings here: whoever is connected is alive.
                Outgoing::Ping => self.dialogue.outbox.alive(),
                Outgoing::Look => {
                    self.looking = true;
                    self.dialogue.look(now);
                }
                Outgoing::Closing => {
                    self.dialogue.session.leave();
                    if self.dialogue.outbox.has_overflowed() {
                        self.dialogue.shared.incidents.count(Incident::SlowConsumer);
                    }
                    self.close_by = Some(now + self.dialogue.shared.config.limits.close_timeout);
                }
                Outgoing::End(end) => {
                    self.dialogue.log_end(&end);
                    self.wire.end(&end);
                    self.over = true;
                }
            }
        }
        busy
    }

    fn read(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        // One text at a time, so that all directions have their turn.
        if self.over || self.close_by.is_some() || self.dialogue.holds_enough() {
            return false;
        }
        let Poll::Ready(came) = self.wire.poll_receive(cx) else { return false };
        match came {
            Came::Text(text) => {
                let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                if !self.dialogue.spend(Sent::Message, now) || !self.dialogue.spend(Sent::Bytes(bytes), now) {
                    return true;
                }
                if self.dialogue.session.holds_texts() {
                    self.dialogue.hold(text);
                } else {
                    self.dialogue.feed(&text, now);
                }
            }
            Came::Wrong(refusal) => self.dialogue.session.expel(&refusal),
            Came::TooBig => {
                self.dialogue.shared.incidents.count(Incident::Misbehaved);
                self.dialogue.outbox.finish(None, End::message_too_big());
            }
            Came::Gone => {
                self.dialogue.session.leave();
                self.over = true;
            }
        }
        true
    }

    /// Arms the timer for what is due next, and does what is due now.
    fn keep_time(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let write = self.pending.as_ref().and_then(|(_, _, since)| since.checked_add(self.write_timeout()));
        let gone = self.wire.deadline();
        let Some(due) = [write, gone, self.close_by, self.dialogue.session.deadline()].into_iter().flatten().min()
        else {
            return false;
        };
        if due > now {
            if let Some(real) = self.dialogue.shared.clock.real(due).filter(|&real| !self.bell.rings_by(real)) {
                self.bell.set(real, cx.waker());
            }
            return false;
        }
        if self.close_by.is_some_and(|deadline| deadline <= now) {
            self.over = true;
        } else if write.is_some_and(|deadline| deadline <= now) {
            self.dialogue.outbox.overrun();
            let lost = self.pending.take().map_or(0, |(_, forward, _)| u64::from(forward));
            self.dialogue.shared.relay.ledger().lose(lost);
        } else if gone.is_some_and(|deadline| deadline <= now) {
            tracing::debug!("gave up {} {}", self.dialogue.peer.role.as_str(), self.dialogue.peer);
            self.dialogue.shared.incidents.count(Incident::Silent);
            self.dialogue.session.leave();
            self.over = true;
        } else {
            self.dialogue.look(now);
        }
        true
    }

    fn write_timeout(&self) -> std::time::Duration {
        self.dialogue.shared.config.limits.write_timeout
    }
}

impl<W: Wire, P: Session + Unpin> Future for Porter<W, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let now = this.dialogue.shared.clock.now();
        for _ in 0..ROUNDS {
            let mut busy = this.write(cx, now);
            busy |= this.dialogue.hear_answer(cx, now);
            busy |= this.read(cx, now);
            busy |= this.keep_time(cx, now);
            if this.over {
                return Poll::Ready(());
            }
            if !busy {
                if std::mem::take(&mut this.looking) {
                    this.dialogue.outbox.looked();
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
        let lost = self.dialogue.outbox.abandon() + pending;
        self.dialogue.shared.relay.ledger().lose(lost);
        self.dialogue.shared.hub.dismiss(self.ticket);
        self.dialogue.outbox.looked();
    }
}
