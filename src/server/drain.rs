//! The drain before a stop: balancers are told, then the connections close one after the other.

use std::sync::Arc;
use std::time::Duration;

use super::{Running, server_stopping};
use crate::core::hub::Turn;
use crate::server::shared::Shared;

/// The time that a drain takes. Both are 0 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drain {
    /// Time in which `GET /readyz` answers 503 and all else goes on, so that balancers send no more peers.
    pub wait: Duration,
    /// Time over which the connections are closed, evenly, so that their peers do not all return at once.
    pub spread: Duration,
}

impl Running {
    /// Drains the server: `GET /readyz` answers 503, and after `wait` the server stops listening and sends close frames
    /// with 1001 over the time of `spread`. A device and its clients are closed together.
    ///
    /// [`Running::stop`] follows. It may come at any time, when this future was dropped: then the remaining connections
    /// are closed at once.
    pub async fn drain(&self, Drain { wait, spread }: Drain) {
        let shared = &self.shared;
        shared.drain.begun.cancel();
        // A frozen clock would make the drain last forever.
        shared.clock.resume();
        if !wait.is_zero() {
            let connections = shared.hub.connections();
            tracing::info!(
                event = "draining",
                duration = wait.as_secs_f64(),
                "draining for {wait:?}: /readyz answers 503, {connections} connections go on"
            );
            shared.clock.timeout(wait, std::future::pending::<()>()).await;
        }
        shared.drain.no_more.cancel();
        close_in_turn(shared, &shared.hub.begin_close(&server_stopping()), spread).await;
    }
}

impl Running {
    /// Calls `work` on a thread of the runtime at this interval, until the last connection of a stop has ended.
    ///
    /// A runtime that makes no progress does not call it, so a watchdog can rely on it.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn repeat(&self, interval: Duration, mut work: impl FnMut() + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.shared.timekeeping.spawn(async move {
            let repeat = async {
                loop {
                    shared.timers.sleep(interval).await;
                    work();
                }
            };
            tokio::select! {
                () = shared.tasks.wait() => {}
                () = repeat => {}
            }
        });
    }
}

/// Closes the first connection now, and the others at equal distances within `spread`.
async fn close_in_turn(shared: &Arc<Shared>, turns: &[Turn], spread: Duration) {
    let count = u32::try_from(turns.len()).unwrap_or(u32::MAX);
    if !spread.is_zero() && count > 0 {
        tracing::info!(
            event = "closing",
            duration = spread.as_secs_f64(),
            "closing the connections within {spread:?}: {count} devices and other peers"
        );
    }
    let began = shared.clock.now();
    for (number, turn) in (0..count).zip(turns) {
        if let Some(due) = began.checked_add(spread.saturating_mul(number) / count) {
            shared.clock.sleep_until(due).await;
        }
        turn.close(&server_stopping());
    }
}
