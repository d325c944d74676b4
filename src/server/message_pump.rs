//! The porter: carries whole texts between a session and a wire that has no frames, no pings and no goodbye of its own.
//! What the pump is to a WebSocket, without all that a WebSocket is.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use crate::core::hub::ConnectionId;
use crate::core::outbox::{End, Outgoing};
use crate::core::session::{Context, Session, Step};
use crate::observe::incidents::Incident;
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;
use crate::server::session_driver::SessionDriver;
use crate::server::shared::Shared;
use crate::server::throttle::Sent;
use crate::server::time::timers::Timer;

/// Rounds in one poll, before other tasks have their turn.
const ROUNDS: usize = 64;

/// What came over a wire.
pub(super) enum Incoming {
    /// A text.
    Text(String),
    /// What is none.
    Invalid(Refusal),
    /// More than a message may have.
    TooBig,
    /// The peer has hung up.
    Gone,
}

/// What texts go over.
pub(super) trait MessageTransport: Send + Unpin {
    /// The next thing that came.
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Incoming>;

    /// Takes a message, and books it: `forward` tells whether a peer's forward is in it.
    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text, forward: bool) -> Poll<io::Result<()>>;

    /// Nothing comes after this.
    fn end(&mut self, end: &End);

    /// When the peer is given up that has not been heard of.
    fn deadline(&self) -> Option<Instant>;
}

/// One peer's task.
pub(super) struct MessagePump<W, P> {
    connection_id: ConnectionId,
    driver: SessionDriver<P>,
    transport: W,
    /// What the wire has had no room for, since when.
    pending: Option<(Text, bool, Instant)>,
    /// The outbox has closed: what waits there has to be taken by then.
    close_by: Option<Instant>,
    done: bool,
    rechecking: bool,
    timer: Timer,
}

impl<W: MessageTransport, P: Session + Unpin> MessagePump<W, P> {
    /// Lets the peer into the hub, and takes the first step.
    pub(super) fn new(shared: Arc<Shared>, context: &Context, session: P, first: Step, transport: W) -> Self {
        let connection_id = shared.hub.add_connection(&context.outbox);
        let (now, timer) = (shared.clock.now(), Timer::new(&shared.timers));
        let mut pump = Self {
            connection_id,
            driver: SessionDriver::new(shared, context, session, now),
            transport,
            pending: None,
            close_by: None,
            done: false,
            rechecking: false,
            timer,
        };
        pump.driver.take(first, now);
        pump
    }

    /// Hands on what waits in the outbox, as far as the wire takes it.
    fn write(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let mut busy = false;
        while !self.done {
            if let Some((text, forward, _)) = &self.pending {
                match self.transport.poll_send(cx, text, *forward) {
                    Poll::Ready(Ok(())) => self.pending = None,
                    Poll::Ready(Err(error)) => {
                        tracing::debug!("lost {} {}: {error}", self.driver.peer.role.as_str(), self.driver.peer);
                        self.done = true;
                        return true;
                    }
                    Poll::Pending => {}
                }
            }
            let Poll::Ready(outgoing) = self.driver.outbox.poll_next(cx, self.pending.is_none()) else { break };
            busy = true;
            match outgoing {
                Outgoing::Message { text, forward } => self.pending = Some((text, forward, now)),
                // There are no pings here: whoever is connected is alive.
                Outgoing::Ping => self.driver.outbox.alive(),
                Outgoing::Recheck => {
                    self.rechecking = true;
                    self.driver.recheck(now);
                }
                Outgoing::Closing => {
                    self.driver.session.leave();
                    if self.driver.outbox.has_overflowed() {
                        self.driver.shared.incidents.count(Incident::SlowConsumer);
                    }
                    self.close_by = Some(now + self.driver.shared.config.limits.close_timeout);
                }
                Outgoing::End(end) => {
                    self.driver.log_end(&end);
                    self.transport.end(&end);
                    self.done = true;
                }
            }
        }
        busy
    }

    fn read(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        // One text at a time, so that all directions have their turn.
        if self.done || self.close_by.is_some() || self.driver.holds_enough() {
            return false;
        }
        let Poll::Ready(incoming) = self.transport.poll_receive(cx) else { return false };
        match incoming {
            Incoming::Text(text) => {
                let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                if !self.driver.spend(Sent::Message, now) || !self.driver.spend(Sent::Bytes(bytes), now) {
                    return true;
                }
                if self.driver.session.holds_texts() {
                    self.driver.hold(text);
                } else {
                    self.driver.feed(&text, now);
                }
            }
            Incoming::Invalid(refusal) => self.driver.session.disconnect(&refusal),
            Incoming::TooBig => {
                self.driver.shared.incidents.count(Incident::Misbehaved);
                self.driver.outbox.close(None, End::message_too_big());
            }
            Incoming::Gone => {
                self.driver.session.leave();
                self.done = true;
            }
        }
        true
    }

    /// Arms the timer for what is due next, and does what is due now.
    fn check_deadlines(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let write = self.pending.as_ref().and_then(|(_, _, since)| since.checked_add(self.write_timeout()));
        let peer_deadline = self.transport.deadline();
        let Some(due) =
            [write, peer_deadline, self.close_by, self.driver.session.deadline()].into_iter().flatten().min()
        else {
            return false;
        };
        if due > now {
            if let Some(real) = self.driver.shared.clock.real(due).filter(|&real| !self.timer.fires_by(real)) {
                self.timer.set(real, cx.waker());
            }
            return false;
        }
        if self.close_by.is_some_and(|deadline| deadline <= now) {
            self.done = true;
        } else if write.is_some_and(|deadline| deadline <= now) {
            self.driver.outbox.close_slow();
            let unsent = self.pending.take().map_or(0, |(_, forward, _)| u64::from(forward));
            self.driver.shared.relay.ledger().count_gone(unsent);
        } else if peer_deadline.is_some_and(|deadline| deadline <= now) {
            tracing::debug!("gave up {} {}", self.driver.peer.role.as_str(), self.driver.peer);
            self.driver.shared.incidents.count(Incident::Silent);
            self.driver.session.leave();
            self.done = true;
        } else {
            self.driver.recheck(now);
        }
        true
    }

    fn write_timeout(&self) -> std::time::Duration {
        self.driver.shared.config.limits.write_timeout
    }
}

impl<W: MessageTransport, P: Session + Unpin> Future for MessagePump<W, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        let now = this.driver.shared.clock.now();
        for _ in 0..ROUNDS {
            let mut busy = this.write(cx, now);
            busy |= this.driver.poll_answer(cx, now);
            busy |= this.read(cx, now);
            busy |= this.check_deadlines(cx, now);
            if this.done {
                return Poll::Ready(());
            }
            if !busy {
                if std::mem::take(&mut this.rechecking) {
                    this.driver.outbox.rechecked();
                }
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<W, P> Drop for MessagePump<W, P> {
    /// However it ends, a panic included: the books are closed, and nobody holds on to it.
    fn drop(&mut self) {
        let pending = self.pending.take().map_or(0, |(_, forward, _)| u64::from(forward));
        let unsent = self.driver.outbox.drain() + pending;
        self.driver.shared.relay.ledger().count_gone(unsent);
        self.driver.shared.hub.remove_connection(self.connection_id);
        self.driver.outbox.rechecked();
    }
}
