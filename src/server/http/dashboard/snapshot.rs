//! The dashboard's view of the server: totals, devices, and the details of one device.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::core::hub::{Device, Traffic};
use crate::core::peer::{Grant, Peer};
use crate::observe::incidents::Incident;
use crate::observe::journal::{Entry, Filter, Kind};
use crate::protocol::DeviceId;
use crate::server::shared::Shared;

/// The maximum number of devices in an event, and of clients of a device. A search finds the others.
const MOST_ROWS: usize = 200;
/// The maximum number of journal entries in an event; the latest are sent.
const MOST_ENTRIES: usize = 500;

/// The query of one page.
#[derive(Default)]
pub(in crate::server) struct View {
    /// Text that a device must contain, in lower case; empty for all devices.
    search: String,
    /// The device to show in detail.
    device: Option<DeviceId>,
}

impl View {
    /// Parses a query.
    pub(in crate::server) fn of_query(query: &str) -> Self {
        let mut view = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "search" => view.search = value.to_lowercase(),
                "device" => view.device = Some(DeviceId::new(&value)),
                _ => {}
            }
        }
        view
    }

    /// Whether the search selects a device.
    fn shows(&self, shared: &Shared, device: &Device) -> bool {
        if self.search.is_empty() {
            return true;
        }
        let (metadata, group) = (device.metadata(), shared.group_of(device));
        let words = [device.id.as_str(), &group, &metadata.owner, &metadata.name];
        words.iter().any(|word| word.to_lowercase().contains(&self.search))
    }
}

/// Computes the events of one page. It remembers the last ones, so it sends only changes.
pub(in crate::server) struct Snapshot {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The devices that the viewer may see.
    grant: Grant,
    /// The page's query.
    view: View,
    /// The state at the last check.
    revision: Option<Revision>,
    /// The last `overview` and the last `device` event.
    last_sent: (String, String),
    /// The number of the last journal entry that was read.
    last_entry: u64,
}

/// Counters that differ whenever something has changed.
#[derive(PartialEq, Eq)]
struct Revision {
    /// Changes of the hub and the journal.
    changes: u64,
    /// Forwards accepted, and forwards with an outcome.
    forwards: [u64; 2],
    /// Open connections.
    connections: usize,
    /// Incidents of all kinds.
    incidents: u64,
}

/// The event `overview`.
#[derive(Serialize)]
struct Overview<'a> {
    /// The totals.
    server: Server,
    /// The number of matching devices, including those beyond the maximum.
    matching: usize,
    /// The matching devices, up to the maximum.
    devices: Vec<DeviceRow<'a>>,
}

/// Totals of the server.
#[derive(Serialize)]
struct Server {
    /// The version of the server.
    version: &'static str,
    /// The start time in seconds since 1970.
    started: f64,
    /// Whether there is a journal.
    journal: bool,
    /// Open connections.
    connections: usize,
    /// Registered devices that the viewer may see.
    devices: usize,
    /// Clients of these devices.
    clients: usize,
    /// Clients that wait for a device.
    waiting: usize,
    /// Forwards accepted.
    accepted: u64,
    /// Forwards delivered.
    delivered: u64,
    /// Forwards refused.
    refused: u64,
    /// Forwards whose receiver was gone.
    gone: u64,
    /// Forwards that a fault dropped.
    dropped: u64,
    /// The number of incidents, for each kind that has happened.
    incidents: BTreeMap<&'static str, u64>,
}

/// A device in the event `overview`.
#[derive(Serialize)]
struct DeviceRow<'a> {
    /// The device id.
    device_id: &'a str,
    /// The group.
    group_name: Cow<'a, str>,
    /// The owner; empty if it is not known.
    owner: &'a str,
    /// The name; empty if it is not known.
    name: &'a str,
    /// The adb port; 0 if it is not known.
    adb_port: u16,
    /// Whether the device has a web server of its own.
    has_files: bool,
    /// The time at which the device connected, in seconds since 1970.
    since: f64,
    /// The number of clients.
    clients: usize,
    /// Forwards to the device.
    to_device: u64,
    /// Forwards to its clients.
    to_client: u64,
}

/// The event `device`.
#[derive(Serialize)]
struct DeviceDetails<'a> {
    /// The device id.
    device_id: &'a str,
    /// The time at which the device connected; `None` if it is not registered.
    since: Option<f64>,
    /// The number of clients, including those beyond the maximum.
    client_count: usize,
    /// The clients, up to the maximum.
    clients: Vec<ClientRow>,
}

/// A client in the event `device`.
#[derive(Serialize)]
struct ClientRow {
    /// The client id.
    client_id: u32,
    /// The time at which the client connected, in seconds since 1970.
    since: f64,
    /// Forwards from the client to the device.
    to_device: u64,
    /// Forwards from the device to the client.
    to_client: u64,
}

/// The event `entries`.
#[derive(Serialize)]
struct NewEntries<'a> {
    /// The number of earlier entries that were left out.
    skipped: usize,
    /// The entries, the oldest first.
    entries: Vec<EntryRow<'a>>,
}

/// A journal entry without its content.
#[derive(Serialize)]
struct EntryRow<'a> {
    /// The number of the entry.
    number: u64,
    /// The time, in seconds since 1970.
    at: f64,
    /// The direction of the message.
    direction: &'static str,
    /// The client id, if a client is concerned.
    client: Option<u32>,
    /// The message type.
    message_type: &'a str,
    /// The type in the payload, if it has one.
    payload_type: Option<String>,
    /// The size in bytes.
    size: usize,
    /// The outcome of the message.
    outcome: &'static str,
    /// The faults that were applied.
    faults: &'a [&'static str],
    /// The reason of a close, or the text of an `error`.
    says: Option<&'a str>,
    /// Whether the entry is the end of a connection.
    closed: bool,
}

impl Snapshot {
    /// Creates a snapshot that has sent nothing yet.
    pub(in crate::server) fn new(shared: Arc<Shared>, grant: Grant, view: View) -> Self {
        Self { shared, grant, view, revision: None, last_sent: <_>::default(), last_entry: 0 }
    }

    /// Returns the events to send; empty if nothing has changed.
    pub(in crate::server) fn updates(&mut self) -> String {
        let current = Some(self.revision());
        if self.revision == current {
            return String::new();
        }
        self.revision = current;
        let mut updates = String::new();
        let overview = self.overview();
        if overview != self.last_sent.0 {
            push(&mut updates, "overview", &overview);
            self.last_sent.0 = overview;
        }
        if let Some(id) = self.view.device.clone() {
            let details = self.details(&id);
            if details != self.last_sent.1 {
                push(&mut updates, "device", &details);
                self.last_sent.1 = details;
            }
            if self.grant.covers(&id)
                && let Some(entries) = self.entries(&id)
            {
                push(&mut updates, "entries", &entries);
            }
        }
        updates
    }

    /// Reads the counters.
    fn revision(&self) -> Revision {
        let ledger = self.shared.relay.ledger().read();
        Revision {
            changes: self.shared.changes.count(),
            forwards: [ledger.accepted, ledger.delivered + ledger.refused + ledger.gone + ledger.dropped],
            connections: self.shared.hub.connections(),
            incidents: Incident::ALL.iter().map(|incident| self.shared.incidents.of(*incident)).sum(),
        }
    }

    /// Makes the event `overview`.
    fn overview(&self) -> String {
        let devices = self.shared.hub.devices();
        let granted: Vec<_> = devices.iter().filter(|device| self.grant.covers(&device.id)).collect();
        let clients = granted.iter().map(|device| device.client_count()).sum();
        let matching: Vec<_> = granted.iter().filter(|device| self.view.shows(&self.shared, device)).collect();
        let rows = matching.iter().take(MOST_ROWS).map(|device| DeviceRow::of(&self.shared, device)).collect();
        json(&Overview { server: self.server(granted.len(), clients), matching: matching.len(), devices: rows })
    }

    /// Makes the totals.
    fn server(&self, devices: usize, clients: usize) -> Server {
        let shared = &self.shared;
        let ledger = shared.relay.ledger().read();
        let counted = |incident: &Incident| (incident.as_str(), shared.incidents.of(*incident));
        Server {
            version: env!("CARGO_PKG_VERSION"),
            started: shared.started,
            journal: shared.relay.journal().is_some(),
            connections: shared.hub.connections(),
            devices,
            clients,
            waiting: shared.hub.waiting(),
            accepted: ledger.accepted,
            delivered: ledger.delivered,
            refused: ledger.refused,
            gone: ledger.gone,
            dropped: ledger.dropped,
            incidents: Incident::ALL.iter().map(counted).filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Makes the event `device`.
    fn details(&self, id: &DeviceId) -> String {
        let device = self.shared.hub.device(id).filter(|_| self.grant.covers(id));
        let clients = device.as_ref().map(|device| device.clients()).unwrap_or_default();
        let rows = clients.iter().take(MOST_ROWS).map(|client| {
            let (to_device, to_client) = client.traffic.read();
            ClientRow { client_id: client.id.get(), since: since(&client.peer), to_device, to_client }
        });
        json(&DeviceDetails {
            device_id: id.as_str(),
            since: device.as_ref().map(|device| since(&device.peer)),
            client_count: clients.len(),
            clients: rows.collect(),
        })
    }

    /// Makes the event `entries`; `None` if there is no new entry.
    fn entries(&mut self, id: &DeviceId) -> Option<String> {
        let journal = self.shared.relay.journal()?;
        let until = journal.count();
        let filter = Filter { device: Some(id.clone()), ..Filter::default() };
        let entries = journal.find(&filter, self.last_entry, usize::MAX);
        self.last_entry = entries.last().map_or(until, |entry| entry.number.max(until));
        let skipped = entries.len().saturating_sub(MOST_ENTRIES);
        let lines: Vec<_> = entries.iter().skip(skipped).map(EntryRow::of).collect();
        (!lines.is_empty()).then(|| json(&NewEntries { skipped, entries: lines }))
    }
}

impl<'a> DeviceRow<'a> {
    fn of(shared: &Shared, device: &'a Device) -> Self {
        let metadata = device.metadata();
        let (to_device, to_client) = Traffic::read(&device.traffic);
        Self {
            device_id: device.id.as_str(),
            group_name: shared.group_of(device),
            owner: &metadata.owner,
            name: &metadata.name,
            adb_port: metadata.adb_port,
            has_files: device.port.is_some(),
            since: since(&device.peer),
            clients: device.client_count(),
            to_device,
            to_client,
        }
    }
}

impl<'a> EntryRow<'a> {
    fn of(entry: &'a Entry) -> Self {
        let closed = entry.kind == Kind::Closed;
        let (text, is_error) = (entry.text.as_str(), entry.message_type == "error");
        Self {
            number: entry.number,
            at: entry.at,
            direction: entry.direction.as_str(),
            client: entry.client.map(crate::protocol::ClientId::get),
            message_type: &entry.message_type,
            payload_type: entry.payload_type(),
            size: text.len(),
            outcome: entry.outcome.as_str(),
            faults: &entry.faults,
            says: (closed || is_error).then_some(text),
            closed,
        }
    }
}

/// The time at which a peer connected, in seconds since 1970.
fn since(peer: &Peer) -> f64 {
    peer.since.duration_since(std::time::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// Serialises a value.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// Appends one event. Compact JSON is one line, as the format needs.
fn push(events: &mut String, name: &str, data: &str) {
    for part in ["event: ", name, "\ndata: ", data, "\n\n"] {
        events.push_str(part);
    }
}
