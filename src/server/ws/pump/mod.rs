//! The pump: the task that carries texts between a WebSocket and its session, and drains the session's outbox.
//!
//! One [`Future::poll`] reads, polls the pending question, writes and checks deadlines. A peer that does not read is
//! still read from, and pings are answered while a hook runs (docs/protocol.md 3.12).
//!
//! `poll` runs these steps until all are pending. Each step may unblock the next, so it loops only where a later step
//! unblocked an earlier one.

mod read;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::core::driver::{Closed, Edge, Output, Phase};
use crate::core::outbox::End;
use crate::core::session::{Session, Step};
use crate::server::session_driver::SessionDriver;
use crate::server::shared::Shared;
use crate::server::ws::close;
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::WebSocketStream;
use crate::server::ws::transport::Transport;

/// Rounds in one poll, before the task yields to others.
const ROUNDS: usize = 16;

/// Time between two looks for a RST of a peer that is not read. While unread data is in the kernel, tokio wakes no task
/// for it.
const RESET_CHECK: Duration = Duration::from_secs(1);

/// Whether the transport can be used for another request once both sides have closed the WebSocket.
///
/// A departure from RFC 6455 (7.1.1), by which the server closes the connection: between nodes alone, where the TLS
/// handshake of a new one costs more than a session. Only if the node of the client closes first: it sends no further
/// request before it has the answer to its close frame, so that no input is left.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    /// It ends with the WebSocket.
    No,
    /// It may be used again.
    Wanted,
    /// The node of the client has closed first.
    Agreed,
    /// All is flushed.
    Ready,
}

/// The task of one WebSocket.
pub(in crate::server) struct Pump<S, P: Session> {
    /// The WebSocket.
    socket: WebSocketStream<S>,
    /// Drives the session.
    session: SessionDriver<P>,
    /// The WebSocket cannot be read any more. Further input is discarded.
    read_closed: bool,
    /// Something was written and not flushed.
    dirty: bool,
    /// The receiver of a burst of texts has not taken the last ones: the task yields to it.
    yields: bool,
    /// Bytes received so far, until the peer's first message is complete.
    first_bytes: Option<usize>,
    /// Time of the next look for a RST, while the peer is not read.
    next_reset_check: Option<Instant>,
    /// Whether the transport outlives the WebSocket.
    reuse: Reuse,
}

impl<S, P> Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    /// Registers the peer in the hub, before its first message is read.
    pub(in crate::server) fn new(shared: Arc<Shared>, socket: WebSocketStream<S>, session: P, now: Instant) -> Self {
        Self::with(shared, socket, session, true, now)
    }

    /// The same for a connection between nodes, which is not pinged, and can be used again.
    pub(in crate::server) fn between_nodes(
        shared: Arc<Shared>,
        socket: WebSocketStream<S>,
        session: P,
        now: Instant,
    ) -> Self {
        Self { reuse: Reuse::Wanted, ..Self::with(shared, socket, session, false, now) }
    }

    fn with(shared: Arc<Shared>, socket: WebSocketStream<S>, session: P, has_pings: bool, now: Instant) -> Self {
        Self {
            socket,
            session: SessionDriver::new(shared, session, has_pings, now),
            read_closed: false,
            dirty: false,
            yields: false,
            first_bytes: Some(0),
            next_reset_check: None,
            reuse: Reuse::No,
        }
    }

    /// Ends the session, and returns the transport if it can be used again.
    pub(in crate::server) fn into_transport(self) -> Option<S> {
        let Self { socket, session, reuse, .. } = self;
        drop(session);
        if reuse == Reuse::Ready { socket.into_transport() } else { None }
    }

    /// Handles the first step of a session that waits for no first message: the request named the device.
    pub(in crate::server) fn begin(&mut self, first: Step) {
        self.first_bytes = None;
        self.session.handle_step(first);
    }

    /// Runs all steps until they are pending.
    fn poll_all(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> Poll<()> {
        for _ in 0..ROUNDS {
            let mut again = self.read(cx, buffer);
            again |= self.session.poll_answer(cx);
            again |= self.write(cx, buffer);
            // Last, because moving the timer to an earlier deadline costs a system call.
            let reset_check = self.check_reset();
            let again = again || self.session.check_deadlines(cx, reset_check);
            match self.session.driver.phase() {
                Phase::Done => return Poll::Ready(()),
                _ if std::mem::take(&mut self.yields) => break,
                _ if again => {}
                _ => {
                    self.session.driver.on_pending();
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks for a RST of a peer that is not read. Returns the time of the next look.
    fn check_reset(&mut self) -> Option<Instant> {
        if !self.session.driver.is_paused() || self.session.driver.phase() == Phase::Done {
            self.next_reset_check = None;
            return None;
        }
        let now = self.session.edge.now();
        let due = *self.next_reset_check.get_or_insert(now + RESET_CHECK);
        if due <= now {
            if self.socket.transport().was_reset() {
                self.on_transport_error(&WebSocketError::ConnectionClosed);
                return None;
            }
            self.next_reset_check = Some(now + RESET_CHECK);
        }
        self.next_reset_check
    }

    /// Writes the output until there is none or the transport has no room, then flushes once.
    ///
    /// Returns true if an earlier step may have become unblocked.
    fn write(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        let (mut unblocked, before) = (false, self.session.driver.phase());
        // The task polls with the same waker from its start to its end.
        while self.session.driver.is_open() && !self.session.driver.outbox().is_idle() {
            let room = match self.socket.poll_ready(cx, buffer) {
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
                Poll::Ready(Err(error)) => {
                    self.on_transport_error(&error);
                    break;
                }
            };
            let Poll::Ready(output) = self.session.poll_output(cx, room) else { break };
            unblocked |= self.on_output(output, cx, buffer);
        }
        self.flush(cx, buffer);
        self.continue_closing(cx);
        unblocked || self.session.driver.phase() != before
    }

    /// Handles one output. Returns true if an earlier step may have become unblocked.
    fn on_output(&mut self, output: Output, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) -> bool {
        match output {
            Output::Text(text) => {
                self.dirty = true;
                if let Err(error) = self.socket.queue_text(&text, buffer) {
                    self.on_transport_error(&error);
                }
                return false;
            }
            Output::Ping => {
                self.send(Message::Ping(Bytes::new()), buffer);
                return false;
            }
            Output::Progress => self.session.abort_if_over(),
            // The close frame goes behind all written messages.
            Output::End(End::Close { code, reason }) => self.send(close::close(code, &reason), buffer),
            Output::End(End::Reset) => self.reset(cx, buffer),
            Output::End(End::Drop) => {}
        }
        true
    }

    /// Flushes all that was written.
    fn flush(&mut self, cx: &mut TaskContext<'_>, buffer: &mut IoBuffer) {
        if !self.dirty || self.session.driver.phase() == Phase::Done {
            return;
        }
        match self.socket.poll_flush(cx, buffer) {
            Poll::Ready(Ok(())) => {
                self.dirty = false;
                self.session.driver.on_flushed(&mut self.session.edge);
            }
            Poll::Ready(Err(error)) => self.on_transport_error(&error),
            Poll::Pending => {
                self.session.driver.on_bytes_written(self.socket.take_bytes_written());
                self.session.driver.on_blocked(&mut self.session.edge);
            }
        }
    }

    /// Continues a closing handshake: once all is flushed, waits for the peer's close frame.
    ///
    /// The wait is short if the server stops.
    fn continue_closing(&mut self, cx: &mut TaskContext<'_>) {
        if self.session.driver.is_open() || self.session.driver.phase() == Phase::Done {
            return;
        }
        // Keeps the waker, so that the server's stop wakes the task.
        let _pending = self.session.poll_output(cx, false);
        self.session.abort_if_over();
        if self.dirty {
            return;
        }
        // A node that has dialed waits for no end of the stream: the other one keeps it open for the next request.
        if self.read_closed || (S::IS_CLIENT && !self.socket.can_read()) {
            self.session.driver.handle_close_complete();
        } else if self.session.edge.shared.stopping.is_cancelled() {
            self.session.driver.shorten_close(&mut self.session.edge);
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
            self.session.driver.on_flushed(&mut self.session.edge);
        }
        self.socket.transport().reset_on_close();
    }

    /// Handles a failed transport. Unwritten messages are lost; the session's leaving informs their senders.
    fn on_transport_error(&mut self, error: &WebSocketError) {
        self.on_lost(error, Closed::Reset);
    }

    /// Handles an end without a close frame.
    fn on_lost(&mut self, error: &WebSocketError, closed: Closed) {
        self.session.log_loss(error);
        self.session.driver.handle_closed(closed, &mut self.session.edge);
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
        this.session.begin_poll();
        IoBuffer::with(|buffer| {
            let outcome = this.poll_all(cx, buffer);
            this.socket.save_unread(buffer);
            outcome
        })
    }
}
