//! The deadlines of the pump: pings, timeouts and the end of the closing handshake.

use std::task::Context as TaskContext;
use std::time::Instant;

use super::{Phase, Pump};
use crate::core::session::Session;
use crate::observe::incidents::Incident;
use crate::server::ws::transport::Transport;

impl<S, P> Pump<S, P>
where
    S: Transport,
    P: Session + Unpin,
{
    /// The next deadline.
    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Done => None,
            Phase::Closing(deadline) | Phase::ShuttingDown(deadline) => Some(deadline),
            Phase::Open if self.close_by.is_some() => self.close_by,
            Phase::Open => {
                let keepalive = &self.driver.shared.config.keepalive;
                let ping = match self.pinged_at {
                    Some(at) => at.checked_add(keepalive.timeout),
                    None => keepalive.interval.and_then(|interval| self.last_received.checked_add(interval)),
                };
                [ping, self.driver.session.deadline(), self.write_deadline()].into_iter().flatten().min()
            }
        }
    }

    /// The deadline of a peer that has taken nothing (docs/protocol.md 4.3.10).
    fn write_deadline(&self) -> Option<Instant> {
        self.stuck_since?.checked_add(self.driver.shared.config.limits.write_timeout)
    }

    /// Handles an expired deadline, or sets the timer. Returns true if a deadline was handled.
    ///
    /// Input only moves the deadline to a later time. The timer then stays as it is, and is set again after it has
    /// fired.
    pub(in crate::server) fn check_deadlines(&mut self, cx: &mut TaskContext<'_>) -> bool {
        let Some(due) = self.due() else { return false };
        let real = self.driver.shared.clock.real(due);
        if real.is_some_and(|real| self.timer.fires_by(real)) {
            return false;
        }
        let now = self.now();
        if due <= now {
            self.on_deadline(now);
            return true;
        }
        // No time is known while the clock is frozen. The change of the clock will wake the task.
        if let Some(real) = real {
            self.timer.set(real, cx.waker());
        }
        false
    }

    /// Handles the deadline that has expired.
    fn on_deadline(&mut self, now: Instant) {
        if self.phase != Phase::Open || self.close_by.is_some() {
            tracing::debug!(
                "dropping {} {}: no closing handshake in time",
                self.driver.peer.role.as_str(),
                self.driver.peer
            );
            self.phase = Phase::Done;
        } else if self.write_deadline().is_some_and(|deadline| deadline <= now) {
            self.driver.outbox.close_slow();
        } else if self.driver.session.deadline().is_some_and(|deadline| deadline <= now) {
            self.driver.recheck(now);
        } else if self.pinged_at.is_some() {
            tracing::info!("dropping {} {}: no pong", self.driver.peer.role.as_str(), self.driver.peer);
            self.driver.shared.incidents.count(Incident::Silent);
            self.driver.session.leave();
            self.phase = Phase::Done;
        } else {
            // Through the outbox, because a ping needs room in the transport.
            self.driver.outbox.ping();
            self.pinged_at = Some(now);
        }
    }
}
