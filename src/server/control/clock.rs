//! The clock, which programs can freeze and move; and the reset of all that they have changed.

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use axum::extract::{Request, State};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::Control;
use super::about::{Answer, ok};
use super::body;
use super::faults::Tally;
use super::problem::Problem;
use super::query::{Query, time};
use crate::server::time::clock::Clock;

/// The pause between two looks whether all that was due is done.
const PAUSE: Duration = Duration::from_millis(1);

/// The looks before an answer without that. Under extreme load it comes earlier.
const LOOKS: usize = 5_000;

#[derive(Serialize)]
struct Time {
    now: f64,
    frozen: bool,
}

/// `GET /control/v1/clock`.
pub(super) async fn read(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    control.time()
}

/// `POST /control/v1/clock/freeze`.
pub(super) async fn freeze(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    control.turn(Clock::freeze).await?;
    control.time()
}

/// `POST /control/v1/clock/resume`.
pub(super) async fn resume(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    control.turn(Clock::resume).await?;
    control.time()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    seconds: Number,
}

/// `POST /control/v1/clock/advance`.
pub(super) async fn advance(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let Advance { seconds } = body::read(&control, request).await?;
    let by = time(&seconds);
    let by =
        by.ok_or_else(|| Problem::bad_request("$.seconds", "must be a number of seconds, from 0 to 1000000000"))?;
    control.turn(|clock| clock.advance(by)).await?;
    control.time()
}

#[derive(Serialize)]
struct Reset {
    disarmed: Vec<Tally>,
    resumed: bool,
}

/// `POST /control/v1/reset`: disarms the faults that requests have armed, and lets a frozen clock run.
pub(super) async fn reset(State(control): State<Arc<Control>>, request: Request) -> Answer {
    Query::of(&request)?.done()?;
    let disarmed = control.disarm_all();
    control.shared.relay.set_seed(0);
    let resumed = control.shared.clock.is_frozen();
    if resumed {
        control.turn(Clock::resume).await?;
    }
    ok(&Reset { disarmed, resumed })
}

impl Control {
    fn time(&self) -> Answer {
        let clock = &self.shared.clock;
        ok(&Time { now: clock.unix_now(), frozen: clock.is_frozen() })
    }

    /// Changes the clock, and waits until all that is due is done.
    async fn turn(&self, change: impl FnOnce(&Clock)) -> Result<(), Problem> {
        let shared = &self.shared;
        change(&shared.clock);
        shared.relay.release_due(shared.clock.now());
        let done = shared.hub.wake_all_sessions();
        for _ in 0..LOOKS {
            if done.try_recv() == Err(TryRecvError::Disconnected) {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = shared.stopping.cancelled() => return Err(Problem::stopping()),
                () = shared.timers.sleep(PAUSE) => {}
            }
        }
        Ok(())
    }
}
