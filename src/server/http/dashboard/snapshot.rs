//! What a page that watches is told: the server in numbers, its devices, and one of them more closely.

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

/// Devices told of at a time; a page that wants others searches for them. Clients of a device likewise.
const MOST_ROWS: usize = 200;
/// Entries of a conversation told at a time, the latest.
const MOST_ENTRIES: usize = 500;

/// What one page looks at.
#[derive(Default)]
pub(in crate::server) struct View {
    search: String,
    device: Option<DeviceId>,
}

impl View {
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

    fn shows(&self, shared: &Shared, device: &Device) -> bool {
        if self.search.is_empty() {
            return true;
        }
        let (metadata, group) = (device.metadata(), shared.group_of(device));
        let words = [device.id.as_str(), &group, &metadata.owner, &metadata.name];
        words.iter().any(|word| word.to_lowercase().contains(&self.search))
    }
}

/// What one page was told last, and what it has to be told next.
pub(in crate::server) struct Snapshot {
    shared: Arc<Shared>,
    grant: Grant,
    view: View,
    revision: Option<Revision>,
    /// What was told last of all devices, and of the one.
    last_sent: (String, String),
    /// The last entry of the journal that was looked at.
    last_entry: u64,
}

/// What does not stay the same when something happens.
#[derive(PartialEq, Eq)]
struct Revision {
    changes: u64,
    forwards: [u64; 2],
    connections: usize,
    incidents: u64,
}

#[derive(Serialize)]
struct Overview<'a> {
    server: Server,
    /// How many devices match, told of or not.
    matching: usize,
    devices: Vec<DeviceRow<'a>>,
}

#[derive(Serialize)]
struct Server {
    version: &'static str,
    /// In seconds since 1970.
    started: f64,
    journal: bool,
    connections: usize,
    devices: usize,
    clients: usize,
    waiting: usize,
    accepted: u64,
    delivered: u64,
    refused: u64,
    gone: u64,
    dropped: u64,
    /// Those that happened.
    incidents: BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct DeviceRow<'a> {
    device_id: &'a str,
    group_name: Cow<'a, str>,
    owner: &'a str,
    name: &'a str,
    adb_port: u16,
    has_files: bool,
    since: f64,
    clients: usize,
    to_device: u64,
    to_client: u64,
}

#[derive(Serialize)]
struct DeviceDetails<'a> {
    device_id: &'a str,
    /// Absent where it is not there.
    since: Option<f64>,
    /// All of them, told of or not.
    client_count: usize,
    clients: Vec<ClientRow>,
}

#[derive(Serialize)]
struct ClientRow {
    client_id: u32,
    since: f64,
    to_device: u64,
    to_client: u64,
}

#[derive(Serialize)]
struct NewEntries<'a> {
    /// How many were left out in front of these.
    skipped: usize,
    entries: Vec<EntryRow<'a>>,
}

/// An entry of the journal: what it was and how large, and not what it says.
#[derive(Serialize)]
struct EntryRow<'a> {
    number: u64,
    at: f64,
    direction: &'static str,
    client: Option<u32>,
    message_type: &'a str,
    payload_type: Option<String>,
    size: usize,
    outcome: &'static str,
    faults: &'a [&'static str],
    /// How a connection ended, or what an `error` says.
    says: Option<&'a str>,
    closed: bool,
}

impl Snapshot {
    pub(in crate::server) fn new(shared: Arc<Shared>, grant: Grant, view: View) -> Self {
        Self { shared, grant, view, revision: None, last_sent: <_>::default(), last_entry: 0 }
    }

    /// The events to send; empty where nothing has moved.
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

    fn revision(&self) -> Revision {
        let ledger = self.shared.relay.ledger().read();
        Revision {
            changes: self.shared.changes.count(),
            forwards: [ledger.accepted, ledger.delivered + ledger.refused + ledger.gone + ledger.dropped],
            connections: self.shared.hub.connections(),
            incidents: Incident::ALL.iter().map(|incident| self.shared.incidents.of(*incident)).sum(),
        }
    }

    fn overview(&self) -> String {
        let devices = self.shared.hub.devices();
        let granted: Vec<_> = devices.iter().filter(|device| self.grant.covers(&device.id)).collect();
        let clients = granted.iter().map(|device| device.client_count()).sum();
        let matching: Vec<_> = granted.iter().filter(|device| self.view.shows(&self.shared, device)).collect();
        let rows = matching.iter().take(MOST_ROWS).map(|device| DeviceRow::of(&self.shared, device)).collect();
        json(&Overview { server: self.server(granted.len(), clients), matching: matching.len(), devices: rows })
    }

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

    /// What was said since the last time.
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

/// When a peer came, in seconds since 1970.
fn since(peer: &Peer) -> f64 {
    peer.since.duration_since(std::time::UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// One event. JSON has no line breaks outside of strings, and none in them.
fn push(events: &mut String, name: &str, data: &str) {
    for part in ["event: ", name, "\ndata: ", data, "\n\n"] {
        events.push_str(part);
    }
}
