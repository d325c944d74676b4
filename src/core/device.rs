//! One registration of a device, and its clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64 as Counter, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use super::client_ids::GivenIds;
use super::outbox::{Outbox, Passage, Share};
use super::party;
use super::peer::Peer;
use super::preregistration::{DeviceMetadata, NO_METADATA};
use crate::protocol::candidates::AddressRules;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId, Text, outbound, payload};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// One registration of a device. It ends with its connection; a device that registers again gets a new one.
#[derive(Debug)]
pub struct Device {
    /// Its id in the cluster.
    pub id: DeviceId,
    /// Id that it registered, if that is another one (docs/protocol.md 5.4.9).
    pub local_id: Option<DeviceId>,
    /// Facts about its connection.
    pub peer: Arc<Peer>,
    /// Queue of messages to it.
    pub outbox: Arc<Outbox>,
    /// `device_info` message for clients that may see all of it, rendered once.
    pub info: Text,
    /// Data from its pre-registration, if there was one (docs/protocol.md 5.2.2).
    pub metadata: Option<Arc<DeviceMetadata>>,
    /// TCP port of its own web server on this machine, if it sent one over the device socket (docs/protocol.md 5.1.4).
    pub port: Option<u16>,
    /// Addresses at which clients reach it, where it sees others (docs/protocol.md 5.5).
    pub advertise: Option<Arc<AddressRules>>,
    /// Forwards between it and its clients.
    pub traffic: Traffic,
    /// Group in its device info, if there is one.
    own_group: Option<Arc<str>>,
    clients: Mutex<Clients>,
}

#[derive(Debug, Default)]
struct Clients {
    present: BTreeMap<ClientId, Arc<Client>>,
    /// Number of clients of all devices of the hub. It changes with `present`, under the same lock.
    total: Arc<AtomicUsize>,
    ids: GivenIds,
    gone: bool,
}

/// Number of forwards that were queued, in each direction. For display only; the ledger has the exact counts.
#[derive(Debug, Default)]
pub struct Traffic {
    to_device: Counter,
    to_client: Counter,
}

impl Traffic {
    /// Returns the forwards to the device, and those to its client or clients.
    pub fn read(&self) -> (u64, u64) {
        (self.to_device.load(Relaxed), self.to_client.load(Relaxed))
    }
}

/// One client of one registration.
#[derive(Debug)]
pub struct Client {
    /// Number by which the device identifies it.
    pub id: ClientId,
    /// Facts about its connection.
    pub peer: Arc<Peer>,
    /// Queue of messages to it.
    pub outbox: Arc<Outbox>,
    /// Forwards between it and the device.
    pub traffic: Traffic,
    /// Credit that its forwards hold in the outbox of the device.
    pub share: Arc<Share>,
    /// Cleared before the device is told that the client has left.
    attached: AtomicBool,
    /// Set once the observer was told that the client has left, since two sessions may detect it.
    pub(super) left: AtomicBool,
}

/// Result of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// It is in the outbox of its receiver, which holds this number of messages.
    Queued(usize),
    /// The receiver has left. A device was told so by `client_disconnected`.
    Gone,
}

/// Result of a search for a client by its id.
#[derive(Debug)]
pub enum Found {
    /// It is connected.
    Here(Arc<Client>),
    /// It has left.
    Left,
    /// The id was never given out.
    Never,
}

impl Device {
    /// Creates a device that is not registered yet.
    pub fn new(id: DeviceId, info: Text, peer: Arc<Peer>, outbox: Arc<Outbox>) -> Self {
        let (metadata, port, advertise, traffic) = (None, None, None, Traffic::default());
        let own_group = payload::group_id_of(outbound::info_of(&info)).filter(|group| !group.is_empty()).map(Arc::from);
        let local_id = None;
        let clients = Mutex::default();
        Self { id, local_id, peer, outbox, info, metadata, port, advertise, traffic, own_group, clients }
    }

    /// Returns the id that it registered, and hears.
    pub fn said_id(&self) -> &DeviceId {
        self.local_id.as_ref().unwrap_or(&self.id)
    }

    /// Returns the group in its device info, read once; `None` if there is none.
    pub fn own_group(&self) -> Option<&Arc<str>> {
        self.own_group.as_ref()
    }

    /// Returns its group, of the pre-registration or of the device info; empty without one (docs/protocol.md 5.3.4).
    pub fn group(&self) -> &str {
        match &*self.metadata().group_name {
            "" => self.own_group.as_deref().unwrap_or_default(),
            announced => announced,
        }
    }

    /// Returns its metadata; empty metadata if it was not pre-registered.
    pub fn metadata(&self) -> &DeviceMetadata {
        self.metadata.as_deref().unwrap_or(&NO_METADATA)
    }

    /// Adds a client: gives out the next id, or `id` of another server, and queues the client's `device_info`. `None` if
    /// the device has left, or has a client with this id. `announce` is called under the lock of the clients, so that no other thread has announced before that it left.
    ///
    /// The client is found by its id only after that, so that no message of the device comes before `device_info`
    /// (docs/protocol.md 2.4).
    ///
    /// # Errors
    /// - [`Refusal::DeviceInUse`] if the client, or one that the device has, excludes all others.
    /// - [`Refusal::TooManyClients`] if the device has `max_clients`.
    /// - [`Refusal::TooManyClientsOf`] if a party of the client has its share of them.
    /// - [`Refusal::ClientIdsExhausted`] after 2^31-1 clients of one registration.
    pub(super) fn attach(
        &self,
        info: Text,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
        max_clients: usize,
        id: Option<ClientId>,
        announce: impl FnOnce(&Arc<Client>),
    ) -> Result<Option<Arc<Client>>, Refusal> {
        let mut clients = self.clients.lock();
        if clients.gone || id.is_some_and(|id| clients.present.contains_key(&id)) {
            return Ok(None);
        }
        self.check_room(&clients, peer, max_clients)?;
        let id = id.map(|id| clients.ids.note(id)).or_else(|| clients.ids.give()).ok_or(Refusal::ClientIdsExhausted)?;
        let client = Arc::new(Client {
            id,
            peer: Arc::clone(peer),
            outbox: Arc::clone(outbox),
            traffic: Traffic::default(),
            share: Arc::default(),
            attached: AtomicBool::new(true),
            left: AtomicBool::new(false),
        });
        if let Some(peer_journal) = outbox.peer_journal() {
            peer_journal.is_client(id);
        }
        // If the outbox is closed, the client's session ends and detaches the client.
        outbox.push(info);
        clients.present.insert(id, Arc::clone(&client));
        clients.total.fetch_add(1, Relaxed);
        announce(&client);
        Ok(Some(client))
    }

    /// Checks that one more client may connect.
    fn check_room(&self, clients: &Clients, peer: &Peer, max_clients: usize) -> Result<(), Refusal> {
        let present = || clients.present.values().map(|client| &*client.peer);
        if present().any(|other| other.grant.exclusive || peer.grant.exclusive) {
            return Err(Refusal::DeviceInUse(self.id.clone()));
        }
        if clients.present.len() >= max_clients {
            return Err(Refusal::TooManyClients(self.id.clone()));
        }
        let full = party::without_room(peer, present(), max_clients);
        full.map_or(Ok(()), |party| Err(Refusal::TooManyClientsOf(self.id.clone(), party)))
    }

    /// Finds a client by its id.
    pub fn find(&self, id: ClientId) -> Found {
        let clients = self.clients.lock();
        if !clients.ids.contains(id.get()) {
            return Found::Never;
        }
        clients.present.get(&id).cloned().map_or(Found::Left, Found::Here)
    }

    /// Sends the device `client_disconnected` for a client that has left, each time it forwards to it (docs/protocol.md
    /// 4.1.20). While one for this id is queued, there is no second one.
    pub fn notify_left(&self, id: ClientId) {
        self.outbox.push_left(id);
    }

    /// Queues a device's forward for its client.
    pub fn push_to_client(&self, client: &Client, message: Text, passage: Passage, now: Instant) -> Forwarded {
        if let Ok(queued) = client.outbox.push_forward(message, passage, now) {
            self.traffic.to_client.fetch_add(1, Relaxed);
            client.traffic.to_client.fetch_add(1, Relaxed);
            return Forwarded::Queued(queued);
        }
        // A closed outbox means that the client is leaving. `detach` tells the device so; if the client was detached
        // before, the device is told again (docs/protocol.md 4.1.20).
        if !self.detach(client) {
            self.notify_left(client.id);
        }
        Forwarded::Gone
    }

    /// Queues a client's forward for the device.
    pub fn push_to_device(&self, client: &Client, message: Text, passage: Passage, now: Instant) -> Forwarded {
        let queued = self.outbox.push_forward_while(message, passage, now, &client.attached, &client.share);
        let Ok(queued) = queued else { return Forwarded::Gone };
        self.traffic.to_device.fetch_add(1, Relaxed);
        client.traffic.to_device.fetch_add(1, Relaxed);
        Forwarded::Queued(queued)
    }

    /// Removes a client and tells the device. Returns false, and tells nothing, if it was removed already.
    pub(super) fn detach(&self, client: &Client) -> bool {
        {
            let mut clients = self.clients.lock();
            if clients.present.remove(&client.id).is_none() {
                return false;
            }
            clients.total.fetch_sub(1, Relaxed);
            // Under the lock: as soon as it is released, a forward of the device may be answered with
            // `client_disconnected`.
            client.attached.store(false, Ordering::Release);
        }
        self.outbox.push_left(client.id);
        true
    }

    /// Starts the client ids of this registration at `first`, or after `before`, whichever is larger. `total` counts its
    /// clients from now on.
    pub(super) fn begin(&self, before: u32, first: u32, total: &Arc<AtomicUsize>) {
        let mut clients = self.clients.lock();
        clients.ids = GivenIds::begin(before, first);
        clients.total = Arc::clone(total);
    }

    /// Returns the number of its clients.
    pub fn client_count(&self) -> usize {
        self.clients.lock().present.len()
    }

    /// Finds a client by its outbox.
    pub fn client_with(&self, outbox: &Arc<Outbox>) -> Option<Arc<Client>> {
        self.clients.lock().present.values().find(|client| Arc::ptr_eq(&client.outbox, outbox)).cloned()
    }

    /// Returns its clients, sorted by id.
    pub fn clients(&self) -> Vec<Arc<Client>> {
        let mut clients: Vec<_> = self.clients.lock().present.values().cloned().collect();
        clients.sort_by_key(|client| client.id);
        clients
    }

    /// Marks the device as gone and removes its clients. Returns them, and the last client id that the device was
    /// given.
    pub(super) fn leave(&self) -> (Vec<Arc<Client>>, u32) {
        let mut clients = self.clients.lock();
        clients.gone = true;
        let left: Vec<_> = std::mem::take(&mut clients.present).into_values().collect();
        clients.total.fetch_sub(left.len(), Relaxed);
        for client in &left {
            client.attached.store(false, Ordering::Release);
        }
        (left, clients.ids.last())
    }
}
