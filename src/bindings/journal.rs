//! `_native.Journal`: the entries of the journal as tuples.

use pyo3::prelude::*;

use super::error::detached;
use crate::observe::journal::{Direction, Entry, Filter, Kind};
use crate::protocol::{ClientId, DeviceId};
use crate::server::Running;

/// The journal of one server. It can be read after the server has stopped.
#[pyclass(frozen, module = "cuttlefish_signaling._native")]
pub(super) struct Journal(pub(super) Running);

/// number, at, closed, direction, device, client, connection, message type, text, payload, outcome, faults.
type EntryTuple = (
    u64,
    f64,
    bool,
    &'static str,
    Option<String>,
    Option<u32>,
    u64,
    String,
    String,
    Option<String>,
    &'static str,
    (Vec<&'static str>, usize),
);

#[pymethods]
impl Journal {
    /// Returns at most `limit` entries with a number above `after` that match, the oldest first. `None` matches anything.
    #[pyo3(signature = (
        after, limit, *, closed = None, direction = None, device = None, client = None, message_type = None,
        payload_type = None
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keyword arguments in Python")]
    fn find(
        &self,
        py: Python<'_>,
        after: u64,
        limit: usize,
        closed: Option<bool>,
        direction: Option<&str>,
        device: Option<&str>,
        client: Option<u32>,
        message_type: Option<String>,
        payload_type: Option<String>,
    ) -> PyResult<Vec<EntryTuple>> {
        let filter = Filter {
            kind: closed.map(|closed| if closed { Kind::Closed } else { Kind::Message }),
            direction: direction.and_then(|name| Direction::ALL.into_iter().find(|known| known.as_str() == name)),
            device: device.map(DeviceId::new),
            client: client.and_then(ClientId::new),
            message_type,
            payload_type,
        };
        detached(py, || {
            let found = self.0.journal().map(|journal| journal.find(&filter, after, limit)).unwrap_or_default();
            found.into_iter().map(entry_tuple).collect()
        })
    }

    /// The number of entries recorded so far.
    #[getter]
    fn count(&self) -> u64 {
        self.0.journal().map_or(0, |journal| journal.count())
    }

    /// The number of recorded entries that the journal has dropped since.
    #[getter]
    fn forgotten(&self) -> u64 {
        self.0.journal().map_or(0, |journal| journal.forgotten())
    }
}

fn entry_tuple(entry: Entry) -> EntryTuple {
    let payload = entry.payload().map(str::to_owned);
    let text = entry.text.as_str().to_owned();
    (
        entry.number,
        entry.at,
        entry.kind == Kind::Closed,
        entry.direction.as_str(),
        entry.device.map(|id| id.to_string()),
        entry.client.map(ClientId::get),
        entry.connection,
        entry.message_type.into_owned(),
        text,
        payload,
        entry.outcome.as_str(),
        (entry.faults, entry.rewritten),
    )
}
