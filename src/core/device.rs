//! One registration of a device, and its clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Counter, Ordering::Relaxed};

use super::client_ids::GivenIds;
use super::outbox::Outbox;
use super::peer::Peer;
use super::preregistration::{DeviceMetadata, NO_METADATA};
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId, Text, outbound};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// One registration of a device. It lives as long as its connection; the next registration is another one.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub id: DeviceId,
    /// Who it is.
    pub peer: Arc<Peer>,
    /// Where messages to it wait.
    pub outbox: Arc<Outbox>,
    /// The `device_info` message for clients that may see all of it, rendered once.
    pub info: Text,
    /// What was said of it before it came, if anything was.
    pub metadata: Option<Arc<DeviceMetadata>>,
    /// Where its own web server listens, on this machine, if it said so over the device socket.
    pub port: Option<u16>,
    /// What it and its clients have said to each other.
    pub traffic: Traffic,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    present: HashMap<ClientId, Arc<Client>>,
    ids: GivenIds,
    gone: bool,
}

/// How many forwards were queued, each way; for people to look at, the books are the ledger's.
#[derive(Debug, Default)]
pub struct Traffic {
    to_device: Counter,
    to_client: Counter,
}

impl Traffic {
    /// To the device, and to the client or clients.
    pub fn read(&self) -> (u64, u64) {
        (self.to_device.load(Relaxed), self.to_client.load(Relaxed))
    }
}

/// One client of one registration.
#[derive(Debug)]
pub struct Client {
    /// The number by which the device knows it.
    pub id: ClientId,
    /// Who it is.
    pub peer: Arc<Peer>,
    /// Where messages to it wait.
    pub outbox: Arc<Outbox>,
    /// What it and the device have said to each other.
    pub traffic: Traffic,
    /// Cleared before the device is told that the client has left.
    attached: AtomicBool,
    /// Set once its leaving has been observed: two sides may find out.
    pub(super) left: AtomicBool,
}

/// What became of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// It waits in the receiver's outbox.
    Queued,
    /// The receiver is gone; the sender has been told.
    Gone,
}

/// Whether a device has a client of a number.
#[derive(Debug)]
pub enum Found {
    /// It is connected.
    Here(Arc<Client>),
    /// It was.
    Left,
    /// The number was never given out.
    Never,
}

impl Device {
    /// A device that is in no table yet.
    pub fn new(id: DeviceId, info: Text, peer: Arc<Peer>, outbox: Arc<Outbox>) -> Self {
        let (metadata, port, traffic) = (None, None, Traffic::default());
        Self { id, peer, outbox, info, metadata, port, traffic, clients: Mutex::default() }
    }

    /// What is said of it.
    pub fn metadata(&self) -> &DeviceMetadata {
        self.metadata.as_deref().unwrap_or(&NO_METADATA)
    }

    /// Takes a client on: gives out the next id, queues the client's `device_info` and only then lets the device's
    /// messages reach it. `None` if the device has left.
    ///
    /// # Errors
    /// [`Refusal::ClientIdsExhausted`] after 2^31-1 clients of one registration, [`Refusal::TooManyClients`].
    pub(super) fn attach(
        &self,
        info: Text,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
        max_clients: usize,
    ) -> Result<Option<Arc<Client>>, Refusal> {
        let mut clients = self.clients.lock();
        if clients.gone {
            return Ok(None);
        }
        if clients.present.len() >= max_clients {
            return Err(Refusal::TooManyClients(self.id.clone()));
        }
        let id = clients.ids.give().ok_or(Refusal::ClientIdsExhausted)?;
        let client = Arc::new(Client {
            id,
            peer: Arc::clone(peer),
            outbox: Arc::clone(outbox),
            traffic: Traffic::default(),
            attached: AtomicBool::new(true),
            left: AtomicBool::new(false),
        });
        if let Some(peer_journal) = outbox.peer_journal() {
            peer_journal.is_client(id);
        }
        // A closed outbox ends the client's session, which then leaves as any other.
        outbox.push(info);
        clients.present.insert(id, Arc::clone(&client));
        Ok(Some(client))
    }

    /// The client of this number.
    pub fn find(&self, id: ClientId) -> Found {
        let clients = self.clients.lock();
        if !clients.ids.contains(id.get()) {
            return Found::Never;
        }
        clients.present.get(&id).cloned().map_or(Found::Left, Found::Here)
    }

    /// Tells the device that this client has left: each time it speaks to it (docs/protocol.md 4).
    pub fn tell_left(&self, id: ClientId) {
        self.outbox.push(outbound::client_disconnected(id));
    }

    /// Queues a message of the device for its client.
    pub fn push_to_client(&self, client: &Client, message: Text, counted: bool) -> Forwarded {
        if client.outbox.push_forward(message, counted).is_ok() {
            self.traffic.to_client.fetch_add(1, Relaxed);
            client.traffic.to_client.fetch_add(1, Relaxed);
            return Forwarded::Queued;
        }
        // Its outbox is closed: it is as good as gone. Whoever lets it go tells the device so, once.
        if !self.detach(client) {
            self.tell_left(client.id);
        }
        Forwarded::Gone
    }

    /// Queues a message of a client, already in the device's words, for the device.
    pub fn push_to_device(&self, client: &Client, message: Text, counted: bool) -> Forwarded {
        if self.outbox.push_forward_while(message, counted, &client.attached).is_err() {
            return Forwarded::Gone;
        }
        self.traffic.to_device.fetch_add(1, Relaxed);
        client.traffic.to_device.fetch_add(1, Relaxed);
        Forwarded::Queued
    }

    /// Lets a client go and tells the device, once; false if it had gone already.
    pub(super) fn detach(&self, client: &Client) -> bool {
        {
            let mut clients = self.clients.lock();
            if clients.present.remove(&client.id).is_none() {
                return false;
            }
            // Under the lock: from now on the device can be told that it has left by speaking to it.
            client.attached.store(false, Ordering::Release);
        }
        self.outbox.push(outbound::client_disconnected(client.id));
        true
    }

    /// Begins the client ids of this registration at `first`, or behind the last id of those before it.
    pub(super) fn begin_ids(&self, before: u32, first: u32) {
        self.clients.lock().ids = GivenIds::begin(before, first);
    }

    /// How many clients it has now.
    pub fn client_count(&self) -> usize {
        self.clients.lock().present.len()
    }

    /// The client with this outbox.
    pub fn client_with(&self, outbox: &Arc<Outbox>) -> Option<Arc<Client>> {
        self.clients.lock().present.values().find(|client| Arc::ptr_eq(&client.outbox, outbox)).cloned()
    }

    /// Its clients now, by id.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.clients.lock().present.values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// Marks it gone and lets its clients go. Returns them, and the last client id it was given; 0 where there is none.
    pub(super) fn leave(&self) -> (Vec<Arc<Client>>, u32) {
        let mut clients = self.clients.lock();
        clients.gone = true;
        let left: Vec<_> = std::mem::take(&mut clients.present).into_values().collect();
        for client in &left {
            client.attached.store(false, Ordering::Release);
        }
        (left, clients.ids.last())
    }
}
