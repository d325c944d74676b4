//! The task that carries whole texts between a session and a local socket.
//!
//! Its transport has no frames, no pings and no closing handshake. A WebSocket has all three, so it has a task of its
//! own, the pump in [`ws`](crate::server::ws).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use crate::core::driver::{BURST, Closed, Output, Phase};
use crate::core::outbox::End;
use crate::core::session::{Session, Step};
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;
use crate::server::session_driver::SessionDriver;
use crate::server::shared::Shared;
use crate::server::throttle::Sent;

/// An input from a message transport.
pub(super) enum Incoming {
    /// A text.
    Text(String),
    /// Input that is no text; the refusal names the reason.
    Invalid(Refusal),
    /// A message above the size limit.
    TooBig,
    /// The peer closed the transport, or it is lost.
    Gone(Closed),
}

/// A transport of whole messages.
pub(super) trait MessageTransport: Send + Unpin {
    /// Polls for the next input.
    fn poll_receive(&mut self, cx: &mut TaskContext<'_>) -> Poll<Incoming>;

    /// Polls to send a message.
    fn poll_send(&mut self, cx: &mut TaskContext<'_>, text: &Text) -> Poll<io::Result<()>>;
}

/// The task of one peer.
pub(super) struct MessagePump<W: MessageTransport, P: Session + Unpin> {
    /// Drives the session.
    session: SessionDriver<P>,
    /// Carries the messages.
    transport: W,
    /// The message that the transport has no room for.
    pending: Option<Text>,
}

impl<W: MessageTransport, P: Session + Unpin> MessagePump<W, P> {
    /// Registers the peer in the hub, and handles the session's first step.
    pub(super) fn new(shared: Arc<Shared>, session: P, first: Step, transport: W) -> Self {
        let now = shared.clock.now();
        let mut pump = Self { session: SessionDriver::new(shared, session, false, now), transport, pending: None };
        pump.session.handle_step(first);
        pump
    }

    /// Writes the output until there is none or the transport has no room. Returns true if it made progress.
    fn write(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let mut busy = false;
        while self.session.driver.is_open() {
            if let Err(error) = self.send_pending(cx) {
                self.session.log_loss(&error);
                self.session.driver.handle_closed(Closed::Reset, &mut self.session.edge);
                return true;
            }
            let Poll::Ready(output) = self.session.poll_output(cx, self.pending.is_none()) else { break };
            busy = true;
            match output {
                Output::Text(text) => self.pending = Some(text),
                // The transport has no close frame: dropping the socket is the end.
                Output::Ping | Output::Progress | Output::End(_) => {}
            }
        }
        busy
    }

    /// Sends the pending message, if the transport has room for it.
    fn send_pending(&mut self, cx: &mut TaskContext<'_>) -> io::Result<()> {
        let Some(text) = &self.pending else { return Ok(()) };
        match self.transport.poll_send(cx, text) {
            Poll::Ready(sent) => {
                sent?;
                self.pending = None;
                self.session.driver.on_flushed(&mut self.session.edge);
            }
            Poll::Pending => self.session.driver.on_blocked(&mut self.session.edge),
        }
        Ok(())
    }

    /// Reads one text. Returns true if it made progress.
    fn read(&mut self, cx: &mut TaskContext<'_>) -> bool {
        // One text a round, so that all directions make progress.
        if self.session.driver.phase() != Phase::Open || !self.session.wants_read(cx) {
            return false;
        }
        let Poll::Ready(incoming) = self.transport.poll_receive(cx) else { return false };
        match incoming {
            Incoming::Text(text) => {
                let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
                self.session.count(Sent::Message);
                self.session.count(Sent::Bytes(bytes));
                self.session.feed(&text);
            }
            Incoming::Invalid(refusal) => self.session.driver.refuse(&refusal),
            Incoming::TooBig => self.session.driver.handle_violation(End::message_too_big()),
            Incoming::Gone(closed) => self.session.driver.handle_closed(closed, &mut self.session.edge),
        }
        true
    }

    /// Handles an expired deadline, or sets the timer to the next one. Returns true if it made progress.
    fn check_deadlines(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let expired = self.session.check_deadlines(cx, None);
        // A slow consumer gets nothing more. The driver counts the message as gone.
        if expired && self.session.driver.outbox().has_overflowed() {
            self.pending = None;
        }
        expired
    }

    /// Whether the connection has ended: without a closing handshake, nothing follows the last message.
    fn is_over(&self) -> bool {
        !self.session.driver.is_open()
    }
}

impl<W: MessageTransport, P: Session + Unpin> Future for MessagePump<W, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.session.begin_poll();
        // After a burst of texts the task yields to others, their receiver above all.
        for _ in 0..BURST {
            let mut busy = this.write(cx);
            busy |= this.session.poll_answer(cx);
            busy |= this.read(cx);
            busy |= this.check_deadlines(cx);
            if this.is_over() {
                return Poll::Ready(());
            }
            if !busy {
                this.session.driver.on_pending();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
