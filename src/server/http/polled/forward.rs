//! Forwards of a polled client, each within its request (docs/protocol.md 5.3.11).

use std::task::Context as TaskContext;

use super::connection::{PendingPoll, Phase, PolledConnection};
use super::kept::PollError;
use crate::server::throttle::Sent;

impl PolledConnection {
    /// Lets the session forward a payload of the client to the device. Waits for room up to `write_timeout`.
    ///
    /// # Errors
    /// [`PollError::Refused`] if the session refuses it, [`PollError::Busy`] if it finds no room, and
    /// [`PollError::Gone`] if the connection is not open.
    pub(in crate::server) async fn forward(&self, payload: &str) -> Result<(), PollError> {
        let _pending = PendingPoll::new(self);
        let forwarded = async {
            let mut is_first = true;
            loop {
                let room = self.room.notified();
                if let Some(done) = self.try_forward(payload, std::mem::take(&mut is_first)) {
                    return done;
                }
                room.await;
            }
        };
        let timeout = self.settings.limits.write_timeout;
        self.shared.clock.timeout(timeout, forwarded).await.unwrap_or(Err(PollError::Busy))
    }

    /// Forwards without waiting. `None` if there is no room: the keeper is woken when there is, and notifies `room`.
    fn try_forward(&self, payload: &str, is_first: bool) -> Option<Result<(), PollError>> {
        let mut state = self.refreshed();
        if state.phase != Phase::Open || self.outbox.is_closed() {
            return Some(Err(PollError::Gone));
        }
        let (Some(waker), Some(session)) = (state.waker.clone(), &mut state.session) else {
            return Some(Err(PollError::Gone));
        };
        if !session.wants_read(&TaskContext::from_waker(&waker)) {
            if is_first {
                // The keeper sets the timer, if the client has sent too much.
                waker.wake();
            }
            return None;
        }
        session.count(Sent::Message);
        session.count(Sent::Bytes(u32::try_from(payload.len()).unwrap_or(u32::MAX)));
        Some(session.driver.handle_payload(payload, &mut session.edge).map_err(PollError::Refused))
    }
}
