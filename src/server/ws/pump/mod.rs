//! The pump: one task that carries texts between one WebSocket and its session, and drains the session's outbox.
//!
//! Reading, writing, a question under way and the timer go on side by side in one [`Future::poll`]: a peer that does
//! not read is still listened to, and pings are answered whatever a hook is doing. `poll` does each of them until it can
//! not go on, in an order in which what one leads to is done by the next, and begins again only where that is not so.

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
use crate::observe::incidents::Incident;
use crate::server::session_driver::SessionDriver;
use crate::server::shared::Shared;
use crate::server::time::timers::Timer;
use crate::server::ws::close;
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::WebSocketStream;
use crate::server::ws::transport::Transport;

/// Rounds of all directions in one poll, before other tasks have their turn.
const ROUNDS: usize = 16;

/// How far a connection is from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Texts go both ways.
    Open,
    /// A close frame was sent or received: write the rest, and wait for the other one until then.
    Closing(Instant),
    /// Nothing is left to say: shut the transport down.
    ShuttingDown(Instant),
    /// Drop the transport.
    Done,
}

#[allow(clippy::struct_excessive_bools, reason = "they come and go independently of each other")]
pub(in crate::server) struct Pump<S, P> {
    connection_id: ConnectionId,
    socket: WebSocketStream<S>,
    driver: SessionDriver<P>,
    phase: Phase,
    /// The WebSocket can not be read any more; what still comes in is thrown away.
    read_closed: bool,
    /// Something was written and not flushed.
    dirty: bool,
    /// The outbox has closed: what waits there, and the goodbye, have to be taken by then.
    close_by: Option<Instant>,
    /// The server stops, and the time for the peer's goodbye was cut.
    close_shortened: bool,
    /// Somebody may wait for all that is due now to be done.
    rechecking: bool,
    /// Forwards written and not flushed.
    unflushed: u64,
    /// Bytes that came, until the peer has said what it is.
    first_bytes: Option<usize>,
    /// Since when the transport takes nothing of what was written.
    stuck_since: Option<Instant>,
    last_received: Instant,
    pinged_at: Option<Instant>,
    /// The time, from when it was first asked for in a poll.
    now: Option<Instant>,
    timer: Timer,
}

impl<S, P> Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    /// Lets the peer into the hub, before its first message is read.
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

    /// The first step of a session that need not be told what its peer wants.
    pub(in crate::server) fn begin(&mut self, first: Step, now: Instant) {
        self.first_bytes = None;
        self.driver.take(first, now);
    }

    fn poll_all(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> Poll<()> {
        for _ in 0..ROUNDS {
            let mut again = self.read(cx, buffer);
            again |= self.poll_answer(cx);
            again |= self.write(cx, buffer);
            // Not before all else is done: a bell that is the next to ring costs a system call.
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

    /// The time is the same throughout a poll, and is not looked up for one that only writes.
    fn now(&mut self) -> Instant {
        *self.now.get_or_insert_with(|| self.driver.shared.clock.now())
    }

    /// Writes what waits in the outbox, as far as the transport takes it, and flushes once. True where more has changed
    /// than that something was written.
    fn write(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        let (mut changed, before) = (false, self.phase);
        while self.phase == Phase::Open {
            let room = match self.socket.poll_ready(cx, buffer) {
                Poll::Ready(Ok(())) => {
                    self.stuck_since = None;
                    true
                }
                Poll::Pending => false,
                Poll::Ready(Err(error)) => return self.on_transport_error(&error),
            };
            let Poll::Ready(outgoing) = self.driver.outbox.poll_next(cx, room) else { break };
            match outgoing {
                Outgoing::Message { text, forward } => {
                    self.unflushed += u64::from(forward);
                    self.dirty = true;
                    if let Err(error) = self.socket.queue_text(&text, buffer) {
                        return self.on_transport_error(&error);
                    }
                }
                Outgoing::Ping => self.send(Message::Ping(Bytes::new()), buffer),
                Outgoing::Recheck => {
                    changed = true;
                    self.rechecking = true;
                    if self.check_over() {
                        return true;
                    }
                    let now = self.now();
                    self.driver.recheck(now);
                }
                Outgoing::Closing => {
                    changed = true;
                    self.driver.session.leave();
                    if self.driver.outbox.has_overflowed() {
                        self.driver.shared.incidents.count(Incident::SlowConsumer);
                    }
                    self.close_by = Some(self.now() + self.driver.shared.config.limits.close_timeout);
                }
                Outgoing::End(End::Reset) => return self.reset(cx, buffer),
                Outgoing::End(end) => self.close(end, buffer),
            }
        }
        if self.dirty && self.phase != Phase::Done {
            match self.socket.poll_flush(cx, buffer) {
                Poll::Ready(Ok(())) => {
                    self.dirty = false;
                    self.stuck_since = None;
                    self.driver.shared.relay.ledger().count_delivered(std::mem::take(&mut self.unflushed));
                }
                Poll::Ready(Err(error)) => return self.on_transport_error(&error),
                Poll::Pending => {
                    self.stuck_since = self.stuck_since.or(Some(self.now()));
                }
            }
        }
        self.finish_closing(cx);
        changed || self.phase != before
    }

    /// The time for goodbyes is over, the server's own included.
    fn check_over(&mut self) -> bool {
        let over = self.driver.shared.over.is_cancelled();
        if over {
            self.driver.session.leave();
            self.phase = Phase::Done;
        }
        over
    }

    /// All is written, the goodbye included: what is left is to wait for the peer's, not long if the server stops.
    fn finish_closing(&mut self, cx: &mut TaskContext<'_>) {
        if !matches!(self.phase, Phase::Closing(_) | Phase::ShuttingDown(_)) {
            return;
        }
        // Keeps us awake for the server's stop.
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

    fn send(&mut self, message: Message, buffer: &mut IoBuffer) {
        self.dirty = true;
        if let Err(error) = self.socket.send(message, buffer) {
            self.on_transport_error(&error);
        }
    }

    /// Ends by a RST, behind what the transport takes at once.
    fn reset(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        if matches!(self.socket.poll_flush(cx, buffer), Poll::Ready(Ok(()))) {
            self.driver.shared.relay.ledger().count_delivered(std::mem::take(&mut self.unflushed));
        }
        self.socket.transport().reset_on_close();
        self.phase = Phase::Done;
        true
    }

    /// Ends from this side: the close frame goes out behind what was written.
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

    /// The transport failed; what was not written is lost, and whoever has to know is told by the session's leaving.
    fn on_transport_error(&mut self, error: &WebSocketError) -> bool {
        tracing::debug!("lost {} {}: {error}", self.driver.peer.role.as_str(), self.driver.peer);
        self.driver.session.leave();
        self.phase = Phase::Done;
        true
    }

    /// Goes on where a question has been answered. True where it has.
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
    /// However it ends, a panic included: the books are closed, and nobody holds on to it.
    fn drop(&mut self) {
        let gone = self.driver.outbox.drain() + self.unflushed;
        self.driver.shared.relay.ledger().count_gone(gone);
        self.driver.shared.hub.remove_connection(self.connection_id);
        // Last: who waits for this finds the books closed, and the connection gone.
        self.driver.outbox.rechecked();
    }
}
