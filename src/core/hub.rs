//! The registry: devices, clients that wait for one, and connections. Short critical sections, no I/O, no clock, no
//! `async`.
//!
//! Ownership goes by [`Arc`], not by the text of an id. A session that failed to register, or was replaced, holds
//! another `Device` than the one in the registry, and so can unregister nothing.
//!
//! There are two kinds of locks. The hub's lock guards the registry; it is taken when peers come and go. The lock of a
//! device guards its clients; it is also taken when the device forwards. A thread that holds the hub's lock may take
//! that of a device, never the other way round. A client's forward takes neither.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;

use super::aliases::{self, Aliases, LocalNames};
use super::client_ids::LastIds;
use super::closing;
pub use super::closing::Turn;
pub use super::device::{Client, Device, Forwarded, Found, Traffic};
pub use super::device_list::{Chunk, DeviceList};
use super::observer::Announcements;
pub use super::observer::Observer;
use super::waiting::Waiting;
pub use super::waiting::{Awaited, Waiter};
use crate::core::outbox::{End, Outbox};
use crate::core::peer::{Grant, Peer};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// The registry of one server.
pub struct Hub {
    state: Mutex<State>,
    /// Incremented when the ICE servers change, so that a session can tell whether its own are the latest.
    ice_generation: AtomicU64,
    /// Incremented when a device registers or leaves.
    list_revision: AtomicU64,
    /// Number of clients of all devices. The devices count.
    client_count: Arc<AtomicUsize>,
    /// Returns the first client id of a registration, if the device had no larger one before.
    first_client_id: Box<dyn Fn() -> u32 + Send + Sync>,
    pub(super) announcements: Announcements,
    /// The second names of devices of this node, if they have any.
    aliases: Option<Aliases>,
}

struct State {
    devices: HashMap<DeviceId, Arc<Device>>,
    /// The same devices, sorted by id.
    list: DeviceList,
    /// Clients that wait for a device to register.
    waiting: Waiting,
    /// All connections, registered or not, in the order in which they were added.
    peers: BTreeMap<u64, Arc<Outbox>>,
    last_peer: u64,
    /// Set when the server stops: the end of each new connection.
    closing: Option<End>,
    /// Last client ids of devices that have left.
    last_ids: LastIds,
}

impl State {
    /// Stores the last client id of a device that leaves, and returns its clients.
    ///
    /// The caller removes the device in the same critical section, so that the next registration starts after that id.
    fn leave(&mut self, device: &Device) -> Vec<Arc<Client>> {
        let (clients, last_id) = device.leave();
        self.last_ids.remember(&device.id, last_id);
        clients
    }
}

/// Number of a connection in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(u64);

impl Hub {
    /// Creates an empty registry.
    ///
    /// The client ids of a registration start after those that the device was given before, or at `first_client_id()`,
    /// whichever is larger. The last ids of `max_devices` devices that have left are kept.
    pub fn new(
        observer: Arc<dyn Observer>,
        max_devices: usize,
        first_client_id: impl Fn() -> u32 + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            devices: HashMap::new(),
            list: DeviceList::default(),
            waiting: Waiting::default(),
            peers: BTreeMap::new(),
            last_peer: 0,
            closing: None,
            last_ids: LastIds::new(max_devices),
        };
        Self {
            state: Mutex::new(state),
            ice_generation: AtomicU64::new(0),
            list_revision: AtomicU64::new(0),
            client_count: Arc::default(),
            first_client_id: Box::new(first_client_id),
            announcements: Announcements::new(observer),
            aliases: None,
        }
    }

    /// Lets devices of local sockets answer to their own ids as well (docs/protocol.md 5.4.10).
    #[must_use]
    pub fn with_aliases(self, aliases: Option<Aliases>) -> Self {
        Self { aliases, ..self }
    }

    /// Returns the names that devices of local sockets get, if they get any.
    pub fn local_names(&self) -> Option<&LocalNames> {
        self.aliases.as_ref().map(|aliases| &aliases.names)
    }

    /// Sets the number of devices that have left whose last client ids are kept.
    pub fn set_max_devices(&self, max_devices: usize) {
        self.state.lock().last_ids.set_max_devices(max_devices);
    }

    /// Adds a connection. The caller does so before it reads the first message.
    ///
    /// If the server is stopping, the outbox closes at once.
    pub fn add_connection(&self, outbox: &Arc<Outbox>) -> ConnectionId {
        let mut state = self.state.lock();
        state.last_peer += 1;
        let connection_id = state.last_peer;
        state.peers.insert(connection_id, Arc::clone(outbox));
        let closing = state.closing.clone();
        drop(state);
        if let Some(end) = closing {
            outbox.close(None, end);
        }
        ConnectionId(connection_id)
    }

    /// Removes a connection.
    pub fn remove_connection(&self, connection_id: ConnectionId) {
        self.state.lock().peers.remove(&connection_id.0);
    }

    /// Closes each connection that is added from now on. Returns the turns in which the others are to be closed.
    pub fn begin_close(&self, end: &End) -> Vec<Turn> {
        let mut state = self.state.lock();
        state.closing = Some(end.clone());
        closing::turns(&state.peers, &state.devices)
    }

    /// Closes every connection, and each one that is added later.
    pub fn close(&self, end: &End) {
        let peers: Vec<_> = {
            let mut state = self.state.lock();
            state.closing = Some(end.clone());
            state.peers.values().cloned().collect()
        };
        for outbox in peers {
            outbox.close(None, end.clone());
            // Wakes connections whose close frame is already sent, since the timeout for the peer's answer is shorter
            // now.
            outbox.wake_session();
        }
    }

    /// Wakes every session, so that it checks its deadlines after the clock was set forward.
    ///
    /// The receiver is disconnected once all sessions have done all that is due.
    pub fn wake_all_sessions(&self) -> mpsc::Receiver<()> {
        let (waiter, all) = mpsc::channel();
        let peers: Vec<_> = self.state.lock().peers.values().cloned().collect();
        for outbox in peers {
            outbox.wake_session_and_notify(waiter.clone());
        }
        all
    }

    /// Registers a device and queues its `config`. The holder of the id is replaced only if it is `expected`.
    ///
    /// # Errors
    /// The holder of the id, if it is another device than `expected`.
    pub fn register(
        &self,
        device: &Arc<Device>,
        config: &Text,
        expected: Option<&Arc<Device>>,
    ) -> Result<(), Arc<Device>> {
        let (replaced, waiting) = {
            let mut state = self.state.lock();
            let replaced = match state.devices.get(&device.id) {
                Some(holder) if !expected.is_some_and(|expected| Arc::ptr_eq(expected, holder)) => {
                    return Err(Arc::clone(holder));
                }
                holder => holder.cloned(),
            };
            // A holder that is replaced gives out no more ids: its clients leave before the ids of the next
            // registration start.
            let replaced = replaced.map(|holder| {
                let clients = state.leave(&holder);
                self.announcements.left(&holder, &clients);
                (holder, clients)
            });
            device.begin(state.last_ids.of(&device.id), (self.first_client_id)(), &self.client_count);
            device.outbox.push(config.clone());
            state.devices.insert(device.id.clone(), Arc::clone(device));
            state.list.insert(Arc::clone(device));
            self.list_revision.fetch_add(1, Ordering::AcqRel);
            let waiting = state.waiting.take([Some(&device.id), device.local_id.as_ref()]);
            self.announcements.registered(device, &waiting);
            (replaced, waiting)
        };
        if let Some((holder, clients)) = replaced {
            holder.outbox.refuse(&Refusal::Replaced(holder.said_id().clone()));
            disconnect_clients(&clients);
        }
        self.announcements.deliver();
        for client in waiting {
            client.outbox.wake_session();
        }
        Ok(())
    }

    /// Unregisters a device and disconnects its clients. Does nothing if another device holds the id.
    pub fn unregister(&self, device: &Arc<Device>) {
        let clients = {
            let mut state = self.state.lock();
            match state.devices.get(&device.id) {
                Some(holder) if Arc::ptr_eq(holder, device) => state.devices.remove(&device.id),
                // Replaced: the session that replaced it has disconnected its clients.
                _ => return,
            };
            state.list.remove(&device.id);
            self.list_revision.fetch_add(1, Ordering::AcqRel);
            let clients = state.leave(device);
            self.announcements.left(device, &clients);
            clients
        };
        disconnect_clients(&clients);
        self.announcements.deliver();
    }

    /// Finds a device by the id that a peer of this node says: its id, or its own id on its local socket.
    pub fn find(&self, id: &DeviceId) -> Option<Arc<Device>> {
        aliases::find(&self.state.lock().devices, id, self.aliases.as_ref()).cloned()
    }

    /// Returns the id in the cluster of the device that [`Hub::find`] finds, or the same id if there is none.
    pub fn resolve(&self, id: &DeviceId) -> DeviceId {
        // Without aliases, both are the same.
        let found = self.aliases.as_ref().and_then(|_| self.find(id));
        found.map_or_else(|| id.clone(), |device| device.id.clone())
    }

    /// Finds a device by its id in the cluster.
    pub fn device(&self, id: &DeviceId) -> Option<Arc<Device>> {
        self.state.lock().devices.get(id).cloned()
    }

    /// Finds a device as [`Hub::find`] does, or, for another node, as [`Hub::device`]. If there is none that `waiter` may
    /// use, its session is woken when one registers.
    pub fn device_or_wait(&self, id: &DeviceId, waiter: &Waiter, is_for_node: bool) -> Option<Arc<Device>> {
        let aliases = self.aliases.as_ref().filter(|_| !is_for_node);
        let mut state = self.state.lock();
        let device =
            aliases::find(&state.devices, id, aliases).filter(|device| waiter.peer.grant.covers(&device.id)).cloned();
        if device.is_none() && state.waiting.add(id, waiter) {
            self.announcements.waiting(id, &waiter.peer);
        }
        drop(state);
        self.announcements.deliver();
        device
    }

    /// Wakes the clients that wait for this device, which has appeared on another node.
    pub fn wake_waiting(&self, id: &DeviceId) {
        let waiting = self.state.lock().waiting.of(id);
        for outbox in waiting {
            outbox.wake_session();
        }
    }

    /// Ends the wait of a client for this device.
    pub fn stop_waiting(&self, id: &DeviceId, waiter: &Arc<Outbox>) {
        {
            let mut state = self.state.lock();
            let Some(removed) = state.waiting.remove(id, waiter) else { return };
            self.announcements.stopped_waiting(id, &removed.peer);
        }
        self.announcements.deliver();
    }

    /// Returns the number of clients that wait for a device.
    pub fn waiting_count(&self) -> usize {
        self.state.lock().waiting.len()
    }

    /// Returns the clients that wait, each with the device id, sorted by device id and by the time at which they
    /// connected.
    pub fn waiting(&self) -> Vec<(DeviceId, Waiter)> {
        let mut waiting = self.state.lock().waiting.all();
        waiting.sort_by(|(a, one), (b, other)| a.cmp(b).then(one.peer.since.cmp(&other.peer.since)));
        waiting
    }

    /// Returns the devices that clients wait for, sorted by id, up to `limit` of those that `grant` covers.
    pub fn awaited(&self, grant: &Grant, limit: usize) -> Vec<Awaited> {
        let most = if grant.devices.is_none() { limit } else { usize::MAX };
        let mut awaited = self.state.lock().waiting.devices(most);
        awaited.retain(|device| grant.covers(&device.id));
        awaited.truncate(limit);
        awaited
    }

    /// Connects a client to a device; `None` if the device has left.
    ///
    /// # Errors
    /// - [`Refusal::DeviceInUse`] if the client, or one that the device has, excludes all others.
    /// - [`Refusal::TooManyClients`] if the device has `max_clients`.
    /// - [`Refusal::TooManyClientsOf`] if a party of the client has its share of them.
    /// - [`Refusal::ClientIdsExhausted`] if the device has no client id left.
    pub fn attach(
        &self,
        device: &Arc<Device>,
        info: Text,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
        max_clients: usize,
    ) -> Result<Option<Arc<Client>>, Refusal> {
        let announce = |client: &Arc<Client>| self.announcements.client_connected(device, client);
        let client = device.attach(info, peer, outbox, max_clients, None, announce)?;
        self.announcements.deliver();
        Ok(client)
    }

    /// Disconnects a client from its device. The device gets `client_disconnected` (docs/protocol.md 4.2.8).
    pub fn detach(&self, device: &Arc<Device>, client: &Arc<Client>) {
        // Announced first: a device that leaves in between no longer has this client among those that it announces.
        self.announcements.client_left(device, client);
        device.detach(client);
        self.announcements.deliver();
    }

    /// Returns the number of devices.
    pub fn device_count(&self) -> usize {
        self.state.lock().devices.len()
    }

    /// Returns the number of clients of all devices, from a counter.
    pub fn client_count(&self) -> usize {
        self.client_count.load(Relaxed)
    }

    /// Returns all devices, sorted by id.
    pub fn devices(&self) -> Vec<Arc<Device>> {
        self.device_list().1.iter().cloned().collect()
    }

    /// Returns all devices, sorted by id, and the revision of this list.
    pub fn device_list(&self) -> (u64, DeviceList) {
        let state = self.state.lock();
        (self.list_revision(), state.list.clone())
    }

    /// Returns the revision of the list of devices. It is incremented when a device registers or leaves.
    pub fn list_revision(&self) -> u64 {
        self.list_revision.load(Ordering::Acquire)
    }

    /// Returns the number of connections, registered or not.
    pub fn connections(&self) -> usize {
        self.state.lock().peers.len()
    }

    /// Makes every device get a new `config`, since the ICE servers have changed.
    pub fn renew_config(&self) {
        self.ice_generation.fetch_add(1, Ordering::AcqRel);
        for device in self.devices() {
            device.outbox.wake_session();
        }
    }

    /// Returns the generation of the ICE servers. It is incremented at each change.
    pub fn ice_generation(&self) -> u64 {
        self.ice_generation.load(Ordering::Acquire)
    }
}

/// Disconnects the clients of a device that has left (docs/protocol.md 4.2.7).
fn disconnect_clients(clients: &[Arc<Client>]) {
    for client in clients {
        client.outbox.refuse(&Refusal::DeviceDisconnected);
    }
}
