//! Entries of the journal: filters, pages, and their form.

use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use super::body::Whole;
use super::problem::Problem;
use super::query::Query;
use crate::observe::journal::{Direction, Entry, Filter, Journal, Kind};
use crate::protocol::{ClientId, DeviceId};

/// The entries that are read under the lock of the journal at once.
const AT_ONCE: usize = 128;

/// The words for directions, for errors.
const DIRECTIONS: &str = "one of device->client, client->device, device->server, server->device, client->server, \
                          server->client";

/// An entry.
#[derive(Serialize)]
pub(super) struct EntryRow<'a> {
    number: u64,
    at: f64,
    closed: bool,
    direction: &'static str,
    device: Option<&'a str>,
    client: Option<u32>,
    connection: u64,
    message_type: &'a str,
    text: &'a str,
    /// The payload of a forward, as JSON text.
    payload: Option<&'a str>,
    outcome: &'static str,
    faults: &'a [&'static str],
    rewritten: usize,
}

impl<'a> From<&'a Entry> for EntryRow<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self {
            number: entry.number,
            at: entry.at,
            closed: entry.kind == Kind::Closed,
            direction: entry.direction.as_str(),
            device: entry.device.as_ref().map(DeviceId::as_str),
            client: entry.client.map(ClientId::get),
            connection: entry.connection,
            message_type: &entry.message_type,
            text: entry.text.as_str(),
            payload: entry.payload(),
            outcome: entry.outcome.as_str(),
            faults: &entry.faults,
            rewritten: entry.rewritten,
        }
    }
}

/// The filters of a request, in a query or in a body.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    closed: Option<bool>,
    direction: Option<String>,
    device: Option<String>,
    client: Option<Whole>,
    message_type: Option<String>,
    #[serde(rename = "type")]
    payload_type: Option<String>,
}

impl Wanted {
    /// Takes the filters of a query.
    pub(super) fn of_query(query: &mut Query) -> Result<Self, Problem> {
        Ok(Self {
            closed: query.switch("closed")?,
            direction: query.text("direction"),
            device: query.text("device"),
            client: query.number("client")?.map(Whole),
            message_type: query.text("message_type"),
            payload_type: query.text("type"),
        })
    }

    /// Checks the filters. `place` makes the place of a fault.
    pub(super) fn filter(self, place: impl Fn(&str) -> String) -> Result<Filter, Problem> {
        let fault = |name: &str, wanted: &str| Problem::bad_request(&place(name), format!("must be {wanted}"));
        let direction = self.direction.map(|word| {
            let found = Direction::ALL.into_iter().find(|known| known.as_str() == word);
            found.ok_or_else(|| fault("direction", DIRECTIONS))
        });
        let client =
            self.client.map(|id| id.client().ok_or_else(|| fault("client", "a client id, from 0 to 2147483647")));
        Ok(Filter {
            kind: self.closed.map(|closed| if closed { Kind::Closed } else { Kind::Message }),
            direction: direction.transpose()?,
            device: self.device.as_deref().map(DeviceId::new),
            client: client.transpose()?,
            message_type: self.message_type,
            payload_type: self.payload_type,
        })
    }
}

/// The bounds of a page: entries, and bytes of their texts.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

/// Entries that match.
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// The number of the last entry that was looked at.
    pub(super) next: u64,
    /// Whether the bounds have ended the search.
    pub(super) more: bool,
}

/// Searches the journal behind number `after`. The lock is held for a few entries at a time, and the task yields.
pub(super) async fn page(journal: &Journal, filter: &Filter, after: u64, bounds: Bounds) -> Page {
    let (mut found, mut bytes) = (Page { entries: Vec::new(), next: after, more: false }, 0);
    loop {
        if found.entries.len() >= bounds.entries || bytes >= bounds.bytes {
            found.more = found.next < journal.count();
            return found;
        }
        let chunk = journal.next(found.next, AT_ONCE);
        if chunk.is_empty() {
            return found;
        }
        for entry in chunk {
            if found.entries.len() >= bounds.entries || bytes >= bounds.bytes {
                break;
            }
            found.next = entry.number;
            if filter.matches(&entry) {
                bytes += entry.text.len();
                found.entries.push(entry);
            }
        }
        yield_now().await;
    }
}
