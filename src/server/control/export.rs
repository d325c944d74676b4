//! The export of the journal, as JSON lines.

use std::sync::Arc;

use axum::extract::{Request, State};
use serde::Serialize;

use super::Control;
use super::about::Answer;
use super::entries::{Bounds, EntryRow, Wanted, page};
use super::lines::{self, Form, Writer};
use super::query::Query;
use crate::observe::journal::{Filter, Journal};

/// The entries and bytes that are rendered at once.
pub(super) const AT_ONCE: Bounds = Bounds { entries: 256, bytes: 256 * 1024 };

/// The last line, if entries were dropped before they were written.
#[derive(Serialize)]
struct Forgotten {
    forgotten: u64,
}

/// `GET /control/v1/journal/export`: the entries of now that match, the oldest first.
pub(super) async fn export(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let mut query = Query::of(&request)?;
    let after = query.number("after")?.unwrap_or(0);
    let filter = Wanted::of_query(&mut query)?.filter(|name| format!("?{name}"))?;
    query.done()?;
    let journal = Arc::clone(control.journal()?);
    let (writer, response) = lines::begin(&control.shared, &request, Form::JsonLines);
    control.shared.tasks.spawn(write(journal, filter, after, writer));
    Ok(response)
}

async fn write(journal: Arc<Journal>, filter: Filter, after: u64, writer: Writer) {
    let (last, mut next, mut forgotten) = (journal.count(), after, 0);
    while next < last {
        let dropped = journal.forgotten().min(last).saturating_sub(next);
        forgotten += dropped;
        next += dropped;
        let found = page(&journal, &filter, next, AT_ONCE).await;
        next = found.next;
        let mut text = Vec::new();
        for entry in found.entries.iter().take_while(|entry| entry.number <= last) {
            Form::JsonLines.append_value(&mut text, &EntryRow::from(entry));
        }
        if !text.is_empty() && !writer.write(&mut text).await {
            return;
        }
        if !found.more {
            break;
        }
    }
    if forgotten > 0 {
        let mut text = Vec::new();
        Form::JsonLines.append_value(&mut text, &Forgotten { forgotten });
        writer.write(&mut text).await;
    }
}
