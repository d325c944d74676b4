//! The journal: queries that may wait.

use std::sync::Arc;

use axum::extract::{Request, State};
use hyper::StatusCode;

use super::Control;
use super::about::Answer;
use super::changes::Deadline;
use super::entries::{Bounds, EntryRow, Page, Wanted, page};
use super::peers::Rows;
use super::problem::Problem;
use super::query::Query;
use crate::observe::journal::Journal;

/// The entries of a page, at most, and by default.
const PAGE: (usize, usize) = (10_000, 1_000);

impl Control {
    /// The journal.
    pub(super) fn journal(&self) -> Result<&Arc<Journal>, Problem> {
        let error = "The journal is off: --journal (journal=True) turns it on";
        self.shared.relay.journal().ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "journal_off", error))
    }
}

/// `GET /control/v1/journal`: the entries that match, the oldest first. `wait` waits for the first one.
pub(super) async fn find(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let mut query = Query::of(&request)?;
    let settings = control.shared.settings();
    let (after, limit) = (query.number("after")?.unwrap_or(0), query.number("limit")?.unwrap_or(PAGE.1));
    let wait = query.wait(settings.control.max_wait)?;
    let filter = Wanted::of_query(&mut query)?.filter(|name| format!("?{name}"))?;
    query.done()?;
    if limit > PAGE.0 {
        return Err(Problem::bad_request("?limit", format!("must be from 0 to {}", PAGE.0)));
    }
    let journal = control.journal()?;
    // A page has texts and payloads, which are parts of them.
    let bounds = Bounds { entries: limit, bytes: settings.control.max_page / 2 };
    let deadline = Deadline::after(wait);
    let mut next = after;
    let Page { entries, next, more } = loop {
        let seen = control.shared.changes.count();
        let found = page(journal, &filter, next, bounds).await;
        next = found.next;
        if !found.entries.is_empty() || limit == 0 || !control.moved_from(seen, deadline).await? {
            break found;
        }
    };
    let mut rows = Rows::new("entries");
    for (at, entry) in entries.iter().enumerate() {
        rows.add(at, &EntryRow::from(entry), usize::MAX).await;
    }
    let (count, forgotten) = (journal.count(), journal.forgotten());
    Ok(rows.end(&format!(r#","next":{next},"more":{more},"count":{count},"forgotten":{forgotten}"#)))
}
