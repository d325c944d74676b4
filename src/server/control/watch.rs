//! The stream of changes: peers, nodes and messages, as they come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use super::Control;
use super::about::Answer;
use super::entries::{EntryRow, page};
use super::export::AT_ONCE;
use super::lines::{self, Form, Writer};
use super::query::Query;
use crate::observe::journal::{Filter, Journal};
use crate::protocol::DeviceId;
use crate::server::feed::FeedEvent;
use crate::server::peer_rows::{NodeRow, now};

/// The silence after which a line is sent. Only a write reveals that the reader is gone.
const QUIET: Duration = Duration::from_secs(10);

/// The pause between two looks. It gathers the lines of a busy server.
const PAUSE: Duration = Duration::from_millis(20);

/// An event that is not of a peer.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Start { devices: usize, clients: usize, instance: &'a str },
    Node { at: f64, node: &'a NodeRow },
    NodeLeft { at: f64, name: &'a str },
    Message { entry: EntryRow<'a> },
    Lost { events: u64, entries: u64 },
    Alive,
    Stopping,
}

/// One stream.
struct Watch {
    control: Arc<Control>,
    form: Form,
    /// Only this device and its clients.
    device: Option<DeviceId>,
    /// Where messages are wanted, the journal and the last entry that was looked at.
    journal: Option<(Arc<Journal>, u64)>,
    peers: broadcast::Receiver<FeedEvent>,
    /// The nodes by name.
    nodes: BTreeMap<String, NodeRow>,
}

/// `GET /control/v1/watch?device=ID&messages=true&after=N`.
pub(super) async fn watch(State(control): State<Arc<Control>>, request: Request) -> Answer {
    let mut query = Query::of(&request)?;
    let device = query.text("device").map(|id| DeviceId::new(&id));
    let (messages, after) = (query.switch("messages")?, query.number("after")?);
    query.done()?;
    let journal = match messages {
        Some(false) => None,
        Some(true) => Some(control.journal()?),
        None => control.journal().ok(),
    };
    let journal = journal.map(|journal| (Arc::clone(journal), after.unwrap_or_else(|| journal.count())));
    let form = Form::wanted(request.headers());
    let peers = control.shared.feed.subscribe();
    let (writer, response) = lines::begin(&control.shared, &request, form);
    let watch = Watch { control: Arc::clone(&control), form, device, journal, peers, nodes: BTreeMap::new() };
    control.shared.tasks.spawn(watch.run(writer));
    Ok(response)
}

impl Watch {
    async fn run(mut self, writer: Writer) {
        let control = Arc::clone(&self.control);
        let shared = &control.shared;
        let mut text = Vec::new();
        let (devices, clients) = (shared.hub.device_count(), shared.hub.client_count());
        self.form.append_value(&mut text, &Event::Start { devices, clients, instance: &control.instance });
        self.nodes = self.present_nodes();
        loop {
            let seen = shared.changes.count();
            self.peers(&mut text);
            self.changed_nodes(&mut text);
            let more = self.messages(&mut text).await;
            if !text.is_empty() && !writer.write(&mut text).await {
                break;
            }
            if more {
                continue;
            }
            tokio::select! {
                biased;
                () = shared.stopping.cancelled() => break,
                () = writer.closed() => return,
                () = shared.changes.moved_from(seen) => {}
                () = shared.timers.sleep(QUIET) => self.form.append_value(&mut text, &Event::Alive),
            }
            shared.timers.sleep(PAUSE).await;
        }
        if shared.stopping.is_cancelled() {
            // The events that came before the stop, and a page of entries.
            self.peers(&mut text);
            self.messages(&mut text).await;
            self.form.append_value(&mut text, &Event::Stopping);
            writer.write_last(text).await;
        }
    }

    /// Appends the events of peers.
    fn peers(&mut self, text: &mut Vec<u8>) {
        loop {
            match self.peers.try_recv() {
                Ok(event) => {
                    if self.device.as_ref().is_none_or(|device| *device == event.device) {
                        self.form.append(text, event.json.as_bytes());
                    }
                }
                Err(TryRecvError::Lagged(events)) => {
                    self.form.append_value(text, &Event::Lost { events, entries: 0 });
                }
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn present_nodes(&self) -> BTreeMap<String, NodeRow> {
        let nodes = self.control.shared.cluster.as_ref().map(|cluster| cluster.nodes()).unwrap_or_default();
        nodes.into_iter().map(NodeRow::from).map(|node| (node.name.clone(), node)).collect()
    }

    /// Appends the nodes that are new or have changed, and those that have left.
    fn changed_nodes(&mut self, text: &mut Vec<u8>) {
        if self.control.shared.cluster.is_none() {
            return;
        }
        let present = self.present_nodes();
        for (name, node) in &present {
            if self.nodes.get(name) != Some(node) {
                self.form.append_value(text, &Event::Node { at: now(), node });
            }
        }
        for name in self.nodes.keys().filter(|name| !present.contains_key(*name)) {
            self.form.append_value(text, &Event::NodeLeft { at: now(), name });
        }
        self.nodes = present;
    }

    /// Appends messages. Returns whether there may be more.
    async fn messages(&mut self, text: &mut Vec<u8>) -> bool {
        let Some((journal, next)) = &mut self.journal else { return false };
        let entries = journal.forgotten().saturating_sub(*next);
        if entries > 0 {
            self.form.append_value(text, &Event::Lost { events: 0, entries });
            *next += entries;
        }
        let filter = Filter { device: self.device.clone(), ..Filter::default() };
        let found = page(journal, &filter, *next, AT_ONCE).await;
        *next = found.next;
        for entry in &found.entries {
            self.form.append_value(text, &Event::Message { entry: entry.into() });
        }
        found.more
    }
}
