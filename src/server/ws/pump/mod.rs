//! The pump: the task that carries texts between a WebSocket and its session, and drains the session's outbox.
//!
//! One [`Future::poll`] reads, polls the pending question, writes and checks deadlines. A peer that does not read is
//! still read from, and pings are answered while a hook runs (docs/protocol.md 3.12).
//!
//! `poll` runs these steps until all are pending. Each step may unblock the next, so it loops only where a later step
//! unblocked an earlier one.

mod read;
mod timers;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::core::hub::ConnectionId;
use crate::core::outbox::{End, Outgoing};
use crate::core::session::{Context, Session, Step};
use crate::server::session_driver::SessionDriver;
use crate::server::shared::Shared;
use crate::server::time::timers::Timer;
use crate::server::ws::close;
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::WebSocketStream;
use crate::server::ws::transport::Transport;

/// Rounds in one poll, before the task yields to others.
const ROUNDS: usize = 16;

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Texts go both ways.
    Open,
    /// A close frame was sent or received. Flush the rest, and wait for the other close frame until the deadline.
    Closing(Instant),
    /// Everything is sent. Shut the transport down until the deadline.
    ShuttingDown(Instant),
    /// Drop the transport.
    Done,
}

/// The task of one WebSocket.
#[allow(clippy::struct_excessive_bools, reason = "they come and go independently of each other")]
pub(in crate::server) struct Pump<S, P> {
    /// The registration in the hub.
    connection_id: ConnectionId,
    /// The WebSocket.
    socket: WebSocketStream<S>,
    /// Drives the session.
    driver: SessionDriver<P>,
    /// The current phase.
    phase: Phase,
    /// The WebSocket cannot be read any more. Further input is discarded.
    read_closed: bool,
    /// Something was written and not flushed.
    dirty: bool,
    /// Deadline to flush the outbox and the close frame, once the outbox has closed.
    close_by: Option<Instant>,
    /// The server stops, and the deadline for the peer's close frame was shortened.
    close_shortened: bool,
    /// A waiter of [`Outbox::rechecked`](crate::core::outbox::Outbox::rechecked) may be pending.
    rechecking: bool,
    /// Forwards that were written and not flushed.
    unflushed: u64,
    /// Bytes received so far, until the peer's first message is complete.
    first_bytes: Option<usize>,
    /// The time since which the transport has taken nothing.
    stuck_since: Option<Instant>,
    /// The time of the last input.
    last_received: Instant,
    /// The time of the ping that has no answer yet.
    pinged_at: Option<Instant>,
    /// The time of this poll, once it was needed.
    now: Option<Instant>,
    /// Wakes the task at the next deadline.
    timer: Timer,
}

impl<S, P> Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    /// Registers the peer in the hub, before its first message is read.
    pub(in crate::server) fn new(
        shared: Arc<Shared>,
        socket: WebSocketStream<S>,
        context: &Context,
        session: P,
        now: Instant,
    ) -> Self {
        let connection_id = shared.hub.add_connection(&context.outbox);
        Self {
            timer: Timer::new(&shared.timers),
            connection_id,
            socket,
            driver: SessionDriver::new(shared, context, session, now),
            phase: Phase::Open,
            read_closed: false,
            dirty: false,
            close_by: None,
            close_shortened: false,
            rechecking: false,
            unflushed: 0,
            first_bytes: Some(0),
            stuck_since: None,
            last_received: now,
            pinged_at: None,
            now: None,
        }
    }

    /// Handles the first step of a session that waits for no first message: the request named the device.
    pub(in crate::server) fn begin(&mut self, first: Step, now: Instant) {
        self.first_bytes = None;
        self.driver.take(first, now);
    }

    /// Runs all steps until they are pending.
    fn poll_all(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> Poll<()> {
        for _ in 0..ROUNDS {
            let mut again = self.read(cx, buffer);
            again |= self.poll_answer(cx);
            again |= self.write(cx, buffer);
            // Last, because moving the timer to an earlier deadline costs a system call.
            let again = again || self.check_deadlines(cx);
            match self.phase {
                Phase::Done => return Poll::Ready(()),
                _ if again => {}
                _ => {
                    if std::mem::take(&mut self.rechecking) {
                        self.driver.outbox.rechecked();
                    }
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The time of this poll. A poll that only writes does not read the clock.
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(|| self.driver.shared.clock.now())
    }

    /// Writes messages of the outbox until it is empty or the transport has no room, then flushes once.
    ///
    /// Returns true if an earlier step may have become unblocked.
    fn write(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        let (mut unblocked, before) = (false, self.phase);
        while self.phase == Phase::Open {
            let room = match self.socket.poll_ready(cx, buffer) {
                Poll::Ready(Ok(())) => {
                    self.stuck_since = None;
                    true
                }
                Poll::Pending => false,
                Poll::Ready(Err(error)) => {
                    self.on_transport_error(&error);
                    break;
                }
            };
            let Poll::Ready(outgoing) = self.driver.outbox.poll_next(cx, room) else { break };
            unblocked |= self.on_outgoing(outgoing, cx, buffer);
        }
        self.flush(cx, buffer);
        self.finish_closing(cx);
        unblocked || self.phase != before
    }

    /// Handles an item of the outbox. Returns true if an earlier step may have become unblocked.
    fn on_outgoing(&mut self, outgoing: Outgoing, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        match outgoing {
            Outgoing::Message { text, forward } => {
                self.unflushed += u64::from(forward);
                self.dirty = true;
                if let Err(error) = self.socket.queue_text(&text, buffer) {
                    self.on_transport_error(&error);
                }
                return false;
            }
            Outgoing::Ping => {
                self.send(Message::Ping(Bytes::new()), buffer);
                return false;
            }
            Outgoing::Recheck => {
                self.rechecking = true;
                if !self.check_over() {
                    let now = self.now();
                    self.driver.recheck(now);
                }
            }
            Outgoing::Closing => {
                self.driver.on_closing();
                self.close_by = Some(self.now() + self.driver.shared.config.limits.close_timeout);
            }
            Outgoing::End(End::Reset) => self.reset(cx, buffer),
            Outgoing::End(end) => self.close(end, buffer),
        }
        true
    }

    /// Flushes all that was written. The ledger then counts the forwards as delivered.
    fn flush(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) {
        if !self.dirty || self.phase == Phase::Done {
            return;
        }
        match self.socket.poll_flush(cx, buffer) {
            Poll::Ready(Ok(())) => {
                self.dirty = false;
                self.stuck_since = None;
                self.driver.shared.relay.ledger().count_delivered(std::mem::take(&mut self.unflushed));
            }
            Poll::Ready(Err(error)) => self.on_transport_error(&error),
            Poll::Pending => self.stuck_since = self.stuck_since.or(Some(self.now())),
        }
    }

    /// Ends the task if the time for closing handshakes is over.
    fn check_over(&mut self) -> bool {
        let over = self.driver.shared.over.is_cancelled();
        if over {
            self.driver.session.leave();
            self.phase = Phase::Done;
        }
        over
    }

    /// Continues a closing handshake: once all is flushed, waits for the peer's close frame.
    ///
    /// The wait is short if the server stops.
    fn finish_closing(&mut self, cx: &mut TaskContext<'_>) {
        if !matches!(self.phase, Phase::Closing(_) | Phase::ShuttingDown(_)) {
            return;
        }
        // Keeps the waker in the outbox, so that the server's stop wakes the task.
        while self.driver.outbox.poll_next(cx, false).is_ready() {
            self.rechecking = true;
        }
        if self.check_over() || self.dirty {
            return;
        }
        let Phase::Closing(deadline) = self.phase else { return };
        if self.read_closed {
            self.phase = Phase::ShuttingDown(deadline);
        } else if !self.close_shortened && self.driver.shared.stopping.is_cancelled() {
            self.close_shortened = true;
            self.phase = Phase::Closing(deadline.min(self.now() + self.driver.shared.config.limits.goodbye_timeout));
        }
    }

    /// Writes a control frame.
    fn send(&mut self, message: Message, buffer: &mut IoBuffer) {
        self.dirty = true;
        if let Err(error) = self.socket.send(message, buffer) {
            self.on_transport_error(&error);
        }
    }

    /// Flushes as far as the transport takes it at once, then ends with a RST.
    fn reset(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) {
        if matches!(self.socket.poll_flush(cx, buffer), Poll::Ready(Ok(()))) {
            self.driver.shared.relay.ledger().count_delivered(std::mem::take(&mut self.unflushed));
        }
        self.socket.transport().reset_on_close();
        self.phase = Phase::Done;
    }

    /// Ends from this side. The close frame goes behind all written messages.
    fn close(&mut self, end: End, buffer: &mut IoBuffer) {
        self.driver.log_end(&end);
        match end {
            End::Drop | End::Reset => self.phase = Phase::Done,
            End::Close { code, reason } => {
                self.phase = Phase::Closing(self.close_by.unwrap_or(self.now()));
                self.send(close::close(code, &reason), buffer);
            }
        }
    }

    /// Handles a failed transport. Unwritten messages are lost; the session's leaving informs their senders.
    fn on_transport_error(&mut self, error: &WebSocketError) {
        tracing::debug!("lost {} {}: {error}", self.driver.peer.role.as_str(), self.driver.peer);
        self.driver.session.leave();
        self.phase = Phase::Done;
    }

    /// Polls the pending question. Returns true if it was answered.
    fn poll_answer(&mut self, cx: &mut TaskContext<'_>) -> bool {
        self.driver.is_asking() && {
            let now = self.now();
            self.driver.poll_answer(cx, now)
        }
    }
}

impl<S, P> Future for Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.now = None;
        IoBuffer::with(|buffer| {
            let outcome = this.poll_all(cx, buffer);
            this.socket.save_unread(buffer);
            outcome
        })
    }
}

impl<S, P> Drop for Pump<S, P> {
    /// Settles the ledger and leaves the hub, however the task ends, a panic included.
    fn drop(&mut self) {
        let gone = self.driver.outbox.drain() + self.unflushed;
        self.driver.shared.relay.ledger().count_gone(gone);
        self.driver.shared.hub.remove_connection(self.connection_id);
        // Last, so that a waiter finds the ledger settled and the connection gone.
        self.driver.outbox.rechecked();
    }
}
