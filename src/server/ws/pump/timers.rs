//! When a pump has to do something though nothing happens: pings, and what takes too long.

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
    /// When something is due next, if nothing happens before.
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

    /// When a peer that takes nothing of what is written is given up.
    fn write_deadline(&self) -> Option<Instant> {
        self.stuck_since?.checked_add(self.driver.shared.config.limits.write_timeout)
    }

    /// Sets the bell, and does what is due. What is heard only moves the deadline away: the bell stays as it is, and is
    /// set anew when it has rung.
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
        // Where the time stands still, whoever moves it wakes us.
        if let Some(real) = real {
            self.timer.set(real, cx.waker());
        }
        false
    }

    fn on_deadline(&mut self, now: Instant) {
        if self.phase != Phase::Open || self.close_by.is_some() {
            tracing::debug!(
                "dropping {} {}: it took too long to say goodbye",
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
            // Through the outbox: it goes out when there is room for it.
            self.driver.outbox.ping();
            self.pinged_at = Some(now);
        }
    }
}
