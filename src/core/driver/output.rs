//! The output of a driver, and the transport's progress with it.

use std::task::{Context, Poll, ready};

use super::{Closed, Driver, Edge, Phase};
use crate::core::outbox::{End, Outgoing};
use crate::core::session::Session;
use crate::observe::incidents::Incident;
use crate::observe::timings::{is_sampled, since};
use crate::protocol::Text;

/// The next thing that a transport does for its driver.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Write this text.
    Text(Text),
    /// Send a ping, and call [`Driver::handle_pong`] on the pong.
    Ping,
    /// The session was called, and may have asked a question or closed its outbox. Poll again.
    Progress,
    /// End the connection: with a close frame where the transport has one, or by dropping or resetting it. The phase is
    /// [`Phase::Closing`] after a close frame, and [`Phase::Done`] otherwise. This is the last output.
    End(End),
}

impl<P: Session + ?Sized> Driver<P> {
    /// Returns the next output, or stores the waker if there is none.
    ///
    /// `room` says whether the transport could write a message now. Without room there is only
    /// [`Output::Progress`].
    pub fn poll_output(&mut self, cx: &Context<'_>, room: bool, edge: &mut impl Edge) -> Poll<Output> {
        if !self.is_open() {
            // Keeps the waker in the outbox, so that the server's stop wakes the task.
            while self.outbox().poll_next(cx, false).is_ready() {
                self.rechecking = true;
            }
            return Poll::Pending;
        }
        // A peer that has sent a close frame is sent nothing more.
        let room = room && self.ending != Some(Closed::Frame);
        Poll::Ready(match ready!(self.outbox().poll_next(cx, room)) {
            Outgoing::Message { text, forward } => {
                self.unflushed += u64::from(forward);
                Output::Text(text)
            }
            Outgoing::Ping => self.on_ping(),
            Outgoing::Recheck => {
                self.rechecking = true;
                self.handle_recheck(edge);
                Output::Progress
            }
            Outgoing::Closing => {
                self.on_outbox_closed(edge);
                Output::Progress
            }
            Outgoing::End(end) => {
                self.phase = match end {
                    End::Close { .. } => Phase::Closing(self.close_by(edge)),
                    End::Drop | End::Reset => Phase::Done,
                };
                Output::End(end)
            }
        })
    }

    /// Sends a ping, if the transport has pings.
    ///
    /// An open connection without pings counts as alive. So does a peer that is not read: it cannot answer, and was
    /// alive when it sent too much.
    fn on_ping(&mut self) -> Output {
        if self.paused || !self.has_pings {
            self.outbox().alive();
        }
        if self.has_pings { Output::Ping } else { Output::Progress }
    }

    /// Lets the session leave, because the outbox has closed. A slow consumer counts as an incident.
    fn on_outbox_closed(&mut self, edge: &mut impl Edge) {
        self.session.leave();
        let context = self.session.context();
        if context.outbox.has_overflowed() {
            context.incidents.count(Incident::SlowConsumer);
        }
        self.phase = Phase::Flushing(self.close_by(edge));
    }

    /// Notes that the transport has taken bytes of the output. Any byte is progress (docs/protocol.md 2.7.3).
    pub fn on_bytes_written(&mut self, bytes: usize) {
        if bytes > 0 {
            self.stuck_since = None;
        }
    }

    /// Notes that the transport has taken all output so far: the ledger counts its forwards as delivered.
    ///
    /// Of many forwards, one is timed: the clock need not be read for the others.
    #[inline]
    pub fn on_flushed(&mut self, edge: &mut impl Edge) {
        if self.blocked_since.take().is_some() {
            (self.stuck_since, self.new_timeout) = (None, true);
            // No answer to a ping was due. From now on, the peer has the whole time again.
            self.handle_input(edge.now());
        }
        if self.unflushed > 0 {
            let count = std::mem::take(&mut self.unflushed);
            self.session.on_written(count);
            let before = self.session.context().relay.ledger().count_delivered(count);
            if is_sampled(before, count) {
                self.time_forward(edge);
            }
        }
    }

    /// Records the time that the last flushed forward has spent in the server.
    #[cold]
    fn time_forward(&mut self, edge: &mut impl Edge) {
        let context = self.session.context();
        if let Some(queued_at) = context.outbox.taken_since() {
            context.timings.observe_queue(since(queued_at, edge.now()));
        }
    }

    /// Notes that the transport does not take the rest of the output now. From the first such call on,
    /// `write_timeout` runs, until bytes are written.
    pub fn on_blocked(&mut self, edge: &mut impl Edge) {
        if self.stuck_since.is_none() {
            let now = edge.now();
            self.stuck_since = Some(now);
            self.blocked_since.get_or_insert(now);
        }
    }

    /// Takes over the account of the forwards that were handed out: the transport counts them in the ledger itself.
    ///
    /// A polled client keeps messages, and counts them when they are fetched.
    pub fn take_unflushed(&mut self) -> u64 {
        std::mem::take(&mut self.unflushed)
    }

    /// Notes that nothing is left to do in this poll. Threads that wait for a recheck of this peer go on.
    pub fn on_pending(&mut self) {
        if std::mem::take(&mut self.rechecking) {
            self.outbox().rechecked();
        }
    }
}
