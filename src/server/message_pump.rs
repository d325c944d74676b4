//! The task that carries whole texts between a session and a message transport (packets, polling).
//!
//! A message transport has no frames, no pings and no closing handshake. A WebSocket has all three, so it has a task of
//! its own, the pump in [`ws`](crate::server::ws).

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

/// Rounds in one poll, before the task yields to others.
const ROUNDS: usize = 64;

/// An input from a message transport.
pub(super) enum Incoming {
    /// A text.
    Text(String),
    /// Input that is no text; the refusal names the reason.
    Invalid(Refusal),
    /// A message above the size limit.
    TooBig,
    /// The peer closed the transport.
    Gone,
}

/// A transport of whole messages.
pub(super) trait MessageTransport: Send + Unpin {
    /// Polls for the next input.
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Incoming>;

    /// Polls to send a message, and counts it in the ledger. `forward` says whether it carries a peer's forward.
    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text, forward: bool) -> Poll<io::Result<()>>;

    /// Ends the transport. No message follows.
    fn end(&mut self, end: &End);

    /// The time at which a silent peer counts as gone; `None` if the transport itself notices.
    fn deadline(&self) -> Option<Instant>;
}

/// The task of one peer.
pub(super) struct MessagePump<W, P> {
    /// The registration in the hub.
    connection_id: ConnectionId,
    /// Drives the session.
    driver: SessionDriver<P>,
    /// Carries the messages.
    transport: W,
    /// The message that the transport has no room for: its text, whether it is a forward, and since when it waits.
    pending: Option<(Text, bool, Instant)>,
    /// Deadline to flush the outbox, once the outbox has closed.
    close_by: Option<Instant>,
    /// The task has finished.
    done: bool,
    /// A waiter of [`Outbox::rechecked`](crate::core::outbox::Outbox::rechecked) may be pending.
    rechecking: bool,
    /// Wakes the task at the next deadline.
    timer: Timer,
}

impl<W: MessageTransport, P: Session + Unpin> MessagePump<W, P> {
    /// Registers the peer in the hub, and handles the session's first step.
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

    /// Writes messages of the outbox until it is empty or the transport has no room. Returns true if it made progress.
    fn write(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        let mut busy = false;
        while !self.done {
            if let Err(error) = self.send_pending(cx) {
                tracing::debug!("lost {} {}: {error}", self.driver.peer.role.as_str(), self.driver.peer);
                self.done = true;
                return true;
            }
            let Poll::Ready(outgoing) = self.driver.outbox.poll_next(cx, self.pending.is_none()) else { break };
            busy = true;
            self.on_outgoing(outgoing, now);
        }
        busy
    }

    /// Sends the pending message, if the transport has room for it.
    fn send_pending(&mut self, cx: &mut TaskContext<'_>) -> io::Result<()> {
        if let Some((text, forward, _)) = &self.pending
            && let Poll::Ready(sent) = self.transport.poll_send(cx, text, *forward)
        {
            sent?;
            self.pending = None;
        }
        Ok(())
    }

    /// Handles an item of the outbox.
    fn on_outgoing(&mut self, outgoing: Outgoing, now: Instant) {
        match outgoing {
            Outgoing::Message { text, forward } => self.pending = Some((text, forward, now)),
            // The transport has no pings. An open connection counts as alive.
            Outgoing::Ping => self.driver.outbox.alive(),
            Outgoing::Recheck => {
                self.rechecking = true;
                self.driver.recheck(now);
            }
            Outgoing::Closing => {
                self.driver.on_closing();
                self.close_by = Some(now + self.driver.shared.config.limits.close_timeout);
            }
            Outgoing::End(end) => {
                self.driver.log_end(&end);
                self.transport.end(&end);
                self.done = true;
            }
        }
    }

    /// Reads one text. Returns true if it made progress.
    fn read(&mut self, cx: &mut TaskContext<'_>, now: Instant) -> bool {
        // One text a round, so that all directions make progress.
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
                self.driver.feed(&text, now);
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

    /// Handles an expired deadline, or sets the timer to the next one. Returns true if it made progress.
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

    /// The time that a peer may take nothing before it is a slow consumer (docs/protocol.md 4.3.10).
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
    /// Settles the ledger and leaves the hub, however the task ends, a panic included.
    fn drop(&mut self) {
        let pending = self.pending.take().map_or(0, |(_, forward, _)| u64::from(forward));
        let unsent = self.driver.outbox.drain() + pending;
        self.driver.shared.relay.ledger().count_gone(unsent);
        self.driver.shared.hub.remove_connection(self.connection_id);
        self.driver.outbox.rechecked();
    }
}
