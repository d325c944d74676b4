//! The events of one dashboard page: the overview, and the device that the page shows in detail.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Bytes;
use serde::Serialize;

use super::about::{About, ice_urls};
use super::overview::{Overviews, Revision};
use super::selection::Selection;
use super::view::{View, since};
use crate::core::hub::Device;
use crate::core::peer::Peer;
use crate::observe::journal::{Direction, Entry, Kind};
use crate::protocol::DeviceId;
use crate::server::cluster::handle::Cluster;
use crate::server::cluster::surveyed::Viewing;
use crate::server::cluster::view::RemoteDevice;
use crate::server::shared::Shared;

/// The maximum number of clients of the device in an event.
const MOST_ROWS: usize = 200;
/// The maximum number of journal entries in an event; the latest are sent.
const MOST_ENTRIES: usize = 500;
/// The maximum number of bytes of each text of a journal entry. Peers choose these texts.
const MOST_WORDS: usize = 256;

/// Computes the events of one page. It remembers the last ones, so it sends only changes.
pub(super) struct Snapshot {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The overviews that pages share.
    overviews: Arc<Overviews>,
    /// The viewer, and the devices that it may see.
    viewer: Peer,
    /// The page's query.
    view: View,
    /// The devices of a viewer with a grant or a search.
    selection: Selection,
    /// The state at the last check.
    revision: Option<Revision>,
    /// The last `overview`, the last `device` and the last `about` event.
    last_sent: (Bytes, Bytes, Bytes),
    /// The number of the last journal entry that was read.
    last_entry: u64,
    /// Has the other nodes asked for their state, which a viewer that may see all devices is shown.
    _viewing: Option<Viewing>,
}

/// The event `device`.
#[derive(Serialize)]
struct DeviceDetails<'a> {
    /// The device id.
    device_id: &'a str,
    /// The address that it connected from; `None` on a local socket.
    address: Option<SocketAddr>,
    /// Where it is registered.
    #[serde(flatten)]
    home: Home<'a>,
    /// The number of clients, including those beyond the maximum.
    client_count: usize,
    /// The clients, up to the maximum.
    clients: Vec<ClientRow>,
}

/// The registration of a device; the default if it is not registered.
#[derive(Default, Serialize)]
struct Home<'a> {
    /// The time at which the device connected; `None` if it is not registered.
    since: Option<f64>,
    /// The node of the cluster that has it; `None` without a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The id that it has registered, if that is another one.
    #[serde(skip_serializing_if = "str::is_empty")]
    local_id: &'a str,
    /// Whether another node has it. Its address and its clients are not known here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_remote: bool,
}

impl<'a> Home<'a> {
    fn here(shared: &'a Shared, device: &'a Device) -> Self {
        Self {
            since: Some(since(&device.peer)),
            node: shared.cluster.as_ref().map(|cluster| cluster.incarnation.node()),
            local_id: device.local_id.as_ref().map_or("", DeviceId::as_str),
            is_remote: false,
        }
    }

    fn there(device: &'a RemoteDevice) -> Self {
        let RemoteDevice { node, facts, .. } = device;
        Self { since: Some(facts.since), node: Some(node), local_id: facts.local_id(), is_remote: true }
    }
}

/// A client in the event `device`.
#[derive(Serialize)]
struct ClientRow {
    /// The client id.
    client_id: u32,
    /// The address that it connected from; `None` on a local socket.
    address: Option<SocketAddr>,
    /// The time at which the client connected, in seconds since 1970.
    since: f64,
    /// Forwards from the client to the device.
    to_device: u64,
    /// Forwards from the device to the client.
    to_client: u64,
}

/// A journal entry without its content, in the event `entries`.
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
    /// The number of the connection; 0 for a forward.
    connection: u64,
    /// The message type.
    message_type: &'a str,
    /// The type in the payload, if it has one.
    payload_type: Option<&'a str>,
    /// The size in bytes.
    size: usize,
    /// The outcome of the message.
    outcome: &'static str,
    /// The faults that were applied.
    faults: &'a [&'static str],
    /// The reason of a close, or the text of an `error`.
    says: Option<&'a str>,
    /// The URLs of the ICE servers in a `config`, without credentials.
    ice: Option<Vec<String>>,
    /// Whether the entry is the end of a connection.
    closed: bool,
}

impl Snapshot {
    /// Creates a snapshot that has sent nothing yet.
    pub(super) fn new(shared: Arc<Shared>, overviews: Arc<Overviews>, viewer: Peer, view: View) -> Self {
        let (selection, last_sent) = (Selection::default(), <_>::default());
        let viewing = shared.cluster.as_ref().filter(|_| viewer.grant.devices.is_none()).map(Cluster::watch_nodes);
        Self { shared, overviews, viewer, view, selection, revision: None, last_sent, last_entry: 0, _viewing: viewing }
    }

    /// Returns the events to send; empty if nothing has changed.
    pub(super) async fn updates(&mut self) -> Vec<Bytes> {
        let (is_first, mut updates) = (self.revision.is_none(), Vec::new());
        let current = Revision::of(&self.shared);
        if self.revision == Some(current) {
            return updates;
        }
        let overview = if self.viewer.grant.devices.is_none() && self.view.is_all() {
            let (revision, overview) = self.overviews.current(&self.shared, is_first).await;
            self.revision = Some(revision);
            overview
        } else {
            self.revision = Some(current);
            self.selection.update(&self.shared, &self.viewer.grant, &self.view).await;
            self.overviews.render(&self.shared, &self.viewer.grant, &self.selection).await
        };
        if overview != self.last_sent.0 {
            self.last_sent.0 = overview.clone();
            updates.push(overview);
        }
        if let Some(id) = self.view.device.as_ref().map(|id| self.shared.hub.resolve(id)) {
            let details = self.details(&id);
            if details != self.last_sent.1 {
                self.last_sent.1 = details.clone();
                updates.push(details);
            }
            if self.viewer.grant.covers(&id) {
                updates.extend(self.entries(&id));
            }
        }
        let about = event("about", &json(&About::of(&self.shared, &self.viewer)));
        if about != self.last_sent.2 {
            self.last_sent.2 = about.clone();
            updates.push(about);
        }
        updates
    }

    /// Makes the event `device`.
    fn details(&self, id: &DeviceId) -> Bytes {
        let cluster = self.shared.cluster.as_ref();
        let is_covered = self.viewer.grant.covers(id);
        let device = self.shared.hub.device(id).filter(|_| is_covered);
        let remote = cluster.filter(|_| is_covered && device.is_none()).and_then(|cluster| cluster.remote_device(id));
        let clients = device.as_ref().map(|device| device.clients()).unwrap_or_default();
        let rows = clients.iter().take(MOST_ROWS).map(|client| {
            let (to_device, to_client) = client.traffic.read();
            ClientRow {
                client_id: client.id.get(),
                address: client.peer.address,
                since: since(&client.peer),
                to_device,
                to_client,
            }
        });
        let details = DeviceDetails {
            device_id: id.as_str(),
            address: device.as_ref().and_then(|device| device.peer.address),
            home: match (&device, &remote) {
                (Some(device), _) => Home::here(&self.shared, device),
                (None, remote) => remote.as_ref().map(Home::there).unwrap_or_default(),
            },
            client_count: clients.len(),
            clients: rows.collect(),
        };
        event("device", &json(&details))
    }

    /// Makes the event `entries`; `None` if there is no new entry.
    ///
    /// Of more entries than one event may have, the latest are sent, and the number of those before them.
    fn entries(&mut self, id: &DeviceId) -> Option<Bytes> {
        let journal = self.shared.relay.journal()?;
        let until = journal.count();
        let (entries, mut skipped) = journal.latest(id, self.last_entry, MOST_ENTRIES);
        self.last_entry = entries.last().map_or(until, |entry| entry.number.max(until));
        let (mut rows, mut left) = (Vec::new(), self.shared.settings().limits.http.viewer_bytes);
        for entry in entries.iter().rev() {
            let row = EntryRow::json(entry);
            let Some(rest) = left.checked_sub(row.len()) else { break };
            left = rest;
            rows.push(row);
        }
        skipped += entries.len() - rows.len();
        rows.reverse();
        let news = format!(r#"{{"skipped":{skipped},"entries":[{}]}}"#, rows.join(","));
        (!entries.is_empty()).then(|| event("entries", &news))
    }
}

impl EntryRow<'_> {
    fn json(entry: &Entry) -> String {
        let closed = entry.kind == Kind::Closed;
        let is_of_server = matches!(entry.direction, Direction::ServerToDevice | Direction::ServerToClient);
        let (text, is_error, payload_type) = (&entry.text, entry.message_type == "error", entry.payload_type());
        json(&EntryRow {
            number: entry.number,
            at: entry.at,
            direction: entry.direction.as_str(),
            client: entry.client.map(crate::protocol::ClientId::get),
            connection: entry.connection,
            message_type: beginning(&entry.message_type),
            payload_type: payload_type.as_deref().map(beginning),
            size: text.len(),
            outcome: entry.outcome.as_str(),
            faults: &entry.faults,
            ice: (entry.message_type == "config" && is_of_server && !closed).then(|| ice_urls(text)),
            says: (closed || is_error).then(|| beginning(text.as_str())),
            closed,
        })
    }
}

/// The beginning of a text, at most [`MOST_WORDS`] bytes.
fn beginning(text: &str) -> &str {
    let most = text.len().min(MOST_WORDS);
    let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// Serialises a value.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// One event. Compact JSON is one line, as the format needs.
fn event(name: &str, data: &str) -> Bytes {
    format!("event: {name}\ndata: {data}\n\n").into()
}
