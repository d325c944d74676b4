//! The counter of changes, and waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use serde::Serialize;

use super::Control;
use super::about::{Answer, ok};
use super::problem::Problem;
use super::query::Query;

/// The pause between two looks while changes come one after the other. It bounds the work of a wait.
const PAUSE: Duration = Duration::from_millis(2);

#[derive(Serialize)]
struct Changed {
    changes: u64,
}

/// `GET /control/v1/changes?seen=N&wait=S`: the number of changes of peers and the journal.
pub(super) async fn changes(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let mut query = Query::of(&request)?;
    let (seen, wait) = (query.number("seen")?, query.wait(control.shared.settings().control.max_wait)?);
    query.done()?;
    if let Some(seen) = seen {
        control.moved_from(seen, Deadline::after(wait)).await?;
    }
    ok(&Changed { changes: control.shared.changes.count() })
}

/// The end of a wait.
#[derive(Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    pub(super) fn after(wait: Duration) -> Self {
        Self(Instant::now().checked_add(wait))
    }

    fn left(self) -> Duration {
        self.0.map_or(Duration::MAX, |due| due.saturating_duration_since(Instant::now()))
    }
}

impl Control {
    /// Waits until the number of changes differs from `seen`. Returns false if the deadline comes first.
    ///
    /// # Errors
    /// [`Problem`] if the server stops.
    pub(super) async fn moved_from(&self, seen: u64, deadline: Deadline) -> Result<bool, Problem> {
        let shared = &self.shared;
        let moved = || shared.changes.count() != seen;
        let left = deadline.left();
        if moved() || left.is_zero() {
            return Ok(moved());
        }
        tokio::select! {
            biased;
            () = shared.stopping.cancelled() => return Err(Problem::stopping()),
            () = shared.changes.moved_from(seen) => {}
            () = shared.timers.sleep(left) => return Ok(moved()),
        }
        shared.timers.sleep(PAUSE).await;
        Ok(true)
    }
}
