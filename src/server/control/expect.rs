//! Expectations: messages that have to come, in this order.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use serde::Deserialize;
use serde_json::Number;

use super::Control;
use super::about::Answer;
use super::body::{self, Object, Whole};
use super::changes::Deadline;
use super::entries::{Bounds, EntryRow, Wanted, page};
use super::peers::Rows;
use super::problem::Problem;
use super::query::seconds;
use crate::observe::journal::{Entry, Filter, Journal, Kind};

/// The steps of an expectation, at most.
const MAX_STEPS: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expectation {
    steps: Vec<Object<Wanted>>,
    after: Option<Whole>,
    wait: Option<Number>,
}

impl Expectation {
    /// Checks the steps. A step without `closed` is a message.
    fn filters(steps: Vec<Object<Wanted>>) -> Result<Vec<Filter>, Problem> {
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(Problem::bad_request("$.steps", format!("must have 1 to {MAX_STEPS} steps")));
        }
        let filter = |(at, Object(step)): (usize, Object<Wanted>)| {
            let mut filter = step.filter(|name| format!("$.steps[{at}].{name}"))?;
            filter.kind = filter.kind.or(Some(Kind::Message));
            Ok(filter)
        };
        steps.into_iter().enumerate().map(filter).collect()
    }
}

/// `POST /control/v1/journal/expect`: waits for one message for each step. The answer has those that have come.
pub(super) async fn expect(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let Expectation { steps, after, wait } = body::read(&control, request).await?;
    let filters = Expectation::filters(steps)?;
    let wait = wait.as_ref().map_or(Some(Duration::ZERO), seconds);
    let wait = wait.ok_or_else(|| Problem::bad_request("$.wait", "must be a number of seconds, 0 or more"))?;
    let journal = control.journal()?;
    let deadline = Deadline::after(wait.min(control.shared.settings().control.max_wait));
    let mut search = Search { found: Vec::new(), next: after.map_or(0, |Whole(after)| after) };
    let is_complete = loop {
        let seen = control.shared.changes.count();
        if search.look(journal, &filters).await {
            break true;
        }
        if !control.moved_from(seen, deadline).await? {
            break false;
        }
    };
    let mut rows = Rows::new("entries");
    for (at, entry) in search.found.iter().enumerate() {
        rows.add(at, &EntryRow::from(entry), usize::MAX).await;
    }
    Ok(rows.end(&format!(",\"complete\":{is_complete}")))
}

/// The state of an expectation.
struct Search {
    found: Vec<Entry>,
    /// The entry behind which the next step is looked for.
    next: u64,
}

impl Search {
    /// Looks at the entries that are new. Returns whether there is one for each step.
    async fn look(&mut self, journal: &Journal, filters: &[Filter]) -> bool {
        while let Some(filter) = filters.get(self.found.len()) {
            let mut one = page(journal, filter, self.next, Bounds { entries: 1, bytes: usize::MAX }).await;
            self.next = one.next;
            let Some(entry) = one.entries.pop() else { return false };
            self.found.push(entry);
        }
        true
    }
}
