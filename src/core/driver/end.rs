//! The end of a connection, and the deadlines that lead to it.

use std::time::{Duration, Instant};

use super::{Driver, Edge};
use crate::core::outbox::End;
use crate::core::session::Session;
use crate::observe::incidents::Incident;
use crate::protocol::refusal::Refusal;

/// How far the end of a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Texts go both ways.
    Open,
    /// The outbox has closed. Its messages are written until the deadline.
    Flushing(Instant),
    /// A close frame was sent or received. The transport flushes the rest, and waits for the other close frame until
    /// the deadline.
    Closing(Instant),
    /// Everything is sent. The transport shuts down until the deadline.
    ShuttingDown(Instant),
    /// The transport is dropped.
    Done,
}

/// The way in which a peer or its transport ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The peer has sent a close frame. It reads nothing but the answer to it.
    Frame,
    /// The peer sends nothing more, and may still read.
    Fin,
    /// The transport is lost.
    Reset,
}

/// The deadline that [`Driver::handle_timeout`] has handled. Those that end the connection are worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// The closing handshake took longer than `close_timeout`.
    Close,
    /// The peer is a slow consumer.
    Write,
    /// The peer has not answered a ping.
    Pong,
    /// The session has rechecked its state.
    Session,
    /// The grant of the peer has expired.
    Grant,
    /// The peer that has sent too much is read again.
    Delay,
    /// A ping is due.
    Ping,
}

impl<P: Session + ?Sized> Driver<P> {
    /// Returns how far the end of the connection has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns whether texts are still handled: no close frame was sent or received.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Flushing(_))
    }

    /// Refuses the peer, with a refusal that closes the connection. A connection that ends already keeps its reason.
    pub fn refuse(&mut self, refusal: &Refusal) {
        if !self.outbox().is_closed() {
            self.session.disconnect(refusal);
        }
    }

    /// Closes the connection for a violation of the transport's rules or of a size limit. The close code names it.
    pub fn handle_violation(&mut self, end: End) {
        let context = self.session.context();
        if !context.outbox.is_closed() {
            context.incidents.count(Incident::Misbehaved);
            context.outbox.close(None, end);
        }
    }

    /// Notes the code and the reason of a close frame, before [`Driver::handle_closed`]. A connection to another node passes
    /// them on to its client.
    pub fn handle_close_frame(&mut self, code: u16, reason: &str) {
        self.session.on_close_frame(code, reason);
    }

    /// Handles the end of the input. The session leaves; messages that wait for the peer are dropped.
    ///
    /// A reset counts at once. Another end counts behind the texts that wait for an answer: [`Driver::wants_read`] handles
    /// both.
    pub fn handle_closed(&mut self, closed: Closed, edge: &mut impl Edge) {
        if closed != Closed::Reset && self.is_open() && !self.held.is_empty() {
            self.ending = Some(closed);
            return;
        }
        self.session.leave();
        self.phase = match closed {
            Closed::Frame if !self.is_open() => self.phase,
            Closed::Frame => Phase::Closing(self.close_by(edge)),
            Closed::Fin => Phase::ShuttingDown(self.close_by(edge)),
            Closed::Reset => Phase::Done,
        };
    }

    /// Drops a peer that has sent nothing for this long.
    pub fn handle_silence(&mut self, silent_for: Duration) {
        let context = self.session.context();
        context.incidents.count(Incident::Silent);
        context.outbox.close_silent(silent_for);
        self.abort();
    }

    /// Ends without a closing handshake, since the server's time for it is over.
    pub fn abort(&mut self) {
        self.session.leave();
        self.phase = Phase::Done;
    }

    /// Shortens the wait for the peer's close frame, since the server stops. A later call leaves the time of an earlier.
    pub fn shorten_close(&mut self, edge: &mut impl Edge) {
        if let Phase::Closing(deadline) = self.phase {
            self.phase = Phase::Closing(deadline.min(after(edge.now(), self.session.context().rules.goodbye_timeout)));
        }
    }

    /// Notes that both close frames are exchanged, or will not come: only the transport has to shut down.
    pub fn handle_close_complete(&mut self) {
        if let Phase::Closing(deadline) = self.phase {
            self.phase = Phase::ShuttingDown(deadline);
        }
    }

    /// Returns the deadline of the end, which begins now unless it has begun.
    pub(super) fn close_by(&self, edge: &mut impl Edge) -> Instant {
        match self.phase {
            Phase::Flushing(deadline) | Phase::Closing(deadline) | Phase::ShuttingDown(deadline) => deadline,
            Phase::Open | Phase::Done => after(edge.now(), self.session.context().rules.close_timeout),
        }
    }

    /// Returns whether the time of the next timeout may be an earlier one since the last call. Most polls need not
    /// compute it.
    #[inline]
    pub fn has_new_timeout(&mut self) -> bool {
        std::mem::take(&mut self.new_timeout) || self.phase != Phase::Open || self.blocked_since.is_some()
    }

    // Deadlines -------------------------------------------------------------------------------------------------------

    /// Returns the time of the next [`Driver::handle_timeout`]. Input moves it to a later time only.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Done => None,
            Phase::Flushing(deadline) | Phase::Closing(deadline) | Phase::ShuttingDown(deadline) => Some(deadline),
            Phase::Open => {
                let due = earlier(earlier(self.ping_deadline(), self.session.deadline()), self.expires);
                // Rare, and asked for in each poll.
                if self.blocked_since.is_none() && self.delayed_until.is_none() {
                    return due;
                }
                earlier(due, earlier(self.write_deadline(), self.delayed_until))
            }
        }
    }

    /// Returns when the next ping is due, or the answer to the last one.
    ///
    /// No answer is due while the peer is not read, and while a ping would have to wait behind messages that the peer
    /// has not taken. The rules on slow consumers apply instead. Then the peer has the whole time again.
    fn ping_deadline(&self) -> Option<Instant> {
        let rules = &self.session.context().rules;
        if !self.has_pings || self.blocked_since.is_some() {
            return None;
        }
        match self.pinged_at {
            Some(at) if !self.paused => at.checked_add(rules.pong_timeout),
            at => rules.ping_interval.and_then(|interval| at.unwrap_or(self.last_received).checked_add(interval)),
        }
    }

    /// Returns the deadline of a slow consumer (docs/protocol.md 4.3.10 to 4.3.12).
    fn write_deadline(&self) -> Option<Instant> {
        let (blocked_since, stuck_since) = (self.blocked_since?, self.stuck_since?);
        let context = self.session.context();
        let (borrows, oldest) = context.outbox.pressure();
        let rules = &context.rules;
        let stuck_for = if borrows { rules.borrow_timeout.min(rules.write_timeout) } else { rules.write_timeout };
        let oldest = oldest.map_or(blocked_since, |oldest| oldest.min(blocked_since));
        earlier(stuck_since.checked_add(stuck_for), oldest.checked_add(rules.max_message_age))
    }

    /// Handles the deadline that has expired; `None` if none has.
    pub fn handle_timeout(&mut self, edge: &mut impl Edge) -> Option<Expired> {
        let now = edge.now();
        let expired = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if !expired(self.poll_timeout()) {
            return None;
        }
        if self.phase != Phase::Open {
            self.phase = Phase::Done;
            return Some(Expired::Close);
        }
        if expired(self.write_deadline()) {
            self.outbox().close_slow();
            return Some(Expired::Write);
        }
        if expired(self.delayed_until) {
            self.delayed_until = None;
            return Some(Expired::Delay);
        }
        if expired(self.expires) {
            self.expires = None;
            self.refuse(&Refusal::Expired);
            return Some(Expired::Grant);
        }
        if expired(self.session.deadline()) {
            self.handle_recheck(edge);
            return Some(Expired::Session);
        }
        if self.pinged_at.is_some() && !self.paused {
            self.handle_silence(now.saturating_duration_since(self.last_received));
            return Some(Expired::Pong);
        }
        // Through the outbox, because a ping needs room in the transport.
        self.outbox().ping();
        self.pinged_at = Some(now);
        Some(Expired::Ping)
    }
}

/// Returns the earlier of two times that may be none.
#[inline]
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Returns `now + timeout`. A time beyond the range of the type is a year from now.
fn after(now: Instant, timeout: Duration) -> Instant {
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 3600))
}
