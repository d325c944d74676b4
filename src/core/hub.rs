//! Who is registered, who is connected to whom. Short critical sections, no I/O, no clock, no `async`.
//!
//! Ownership goes by [`Arc`], never by an id's text: a session that failed to register, or was replaced, holds
//! another `Device` than the one in the table and can unregister nothing.
//!
//! Two kinds of lock, never held together the other way round: the hub's (who is there), taken when peers come and
//! go, and one for each device (its clients), taken also when a device forwards. A client's forward takes neither.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;

use super::client_ids::LastIds;
pub use super::device::{Client, Device, Forwarded, Found, Traffic};
use crate::core::outbox::{End, Outbox};
use crate::core::peer::Peer;
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text};
use crate::sync::{AtomicU64, Mutex, Ordering};

/// Hears of devices and clients that come and go; called without a lock held.
pub trait Observer: Send + Sync + 'static {
    /// A device has registered.
    fn device_registered(&self, _device: &Device) {}
    /// A device is gone, and its clients with it.
    fn device_left(&self, _device: &Device) {}
    /// A client has its device info.
    fn client_connected(&self, _device: &Device, _client: &Client) {}
    /// A client is gone.
    fn client_left(&self, _device: &Device, _client: &Client) {}
    /// The journal has a new entry. Comes often, from within: has to be quick.
    fn recorded(&self) {}
}

/// Hears nothing.
impl Observer for () {}

/// The table of everybody there is.
pub struct Hub {
    state: Mutex<State>,
    /// Counts up whenever the ICE servers change, so that sessions see whether theirs are the latest.
    ice_generation: AtomicU64,
    /// The first client id of a registration, where the device had no larger one before.
    first_client_id: Box<dyn Fn() -> u32 + Send + Sync>,
    observer: Arc<dyn Observer>,
}

struct State {
    devices: HashMap<DeviceId, Arc<Device>>,
    /// Clients that wait for a device to register.
    waiting: HashMap<DeviceId, Vec<Arc<Outbox>>>,
    /// Everybody who is connected, registered or not.
    peers: HashMap<u64, Arc<Outbox>>,
    last_peer: u64,
    /// How whoever still comes is sent away, once the server stops.
    closing: Option<End>,
    /// The last client ids of devices that have left.
    last_ids: LastIds,
}

impl State {
    /// A device leaves: its last client id is remembered, and its clients are returned. One critical section with its
    /// removal, so that the next registration begins behind that id.
    fn leave(&mut self, device: &Device) -> Vec<Arc<Client>> {
        let (clients, last_id) = device.leave();
        self.last_ids.remember(&device.id, last_id);
        clients
    }
}

/// A place in the hub's list of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionId(u64);

impl Hub {
    /// An empty hub. The client ids of each registration begin behind those that the device was given before; where it
    /// had none, or smaller ones, at `first_client_id()`. The ids of `max_devices` devices that left are remembered.
    pub fn new(
        observer: Arc<dyn Observer>,
        max_devices: usize,
        first_client_id: impl Fn() -> u32 + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            devices: HashMap::new(),
            waiting: HashMap::new(),
            peers: HashMap::new(),
            last_peer: 0,
            closing: None,
            last_ids: LastIds::new(max_devices),
        };
        Self {
            state: Mutex::new(state),
            ice_generation: AtomicU64::new(0),
            first_client_id: Box::new(first_client_id),
            observer,
        }
    }

    /// Lets a connection in, before its first message is read. Once the server is stopping, its outbox closes at once.
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

    /// Forgets a connection.
    pub fn remove_connection(&self, connection_id: ConnectionId) {
        self.state.lock().peers.remove(&connection_id.0);
    }

    /// Closes every connection, and those that still come.
    pub fn close(&self, end: &End) {
        let peers: Vec<_> = {
            let mut state = self.state.lock();
            state.closing = Some(end.clone());
            state.peers.values().cloned().collect()
        };
        for outbox in peers {
            outbox.close(None, end.clone());
            // Those who are leaving already are to hurry.
            outbox.wake_session();
        }
    }

    /// Has every connection look at what it waits for: the time was turned. The receiver is hung up on once all have
    /// done what was due.
    pub fn wake_all_sessions(&self) -> mpsc::Receiver<()> {
        let (waiter, all) = mpsc::channel();
        let peers: Vec<_> = self.state.lock().peers.values().cloned().collect();
        for outbox in peers {
            outbox.wake_session_and_notify(waiter.clone());
        }
        all
    }

    /// Registers a device and queues its `config`, unless somebody else than `expected` holds the id. An expected
    /// holder is replaced.
    ///
    /// # Errors
    /// The holder.
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
            // A holder that is replaced gives out no more ids: its clients go before the next registration begins.
            let replaced = replaced.map(|holder| {
                let clients = state.leave(&holder);
                (holder, clients)
            });
            device.begin_ids(state.last_ids.of(&device.id), (self.first_client_id)());
            device.outbox.push(config.clone());
            state.devices.insert(device.id.clone(), Arc::clone(device));
            (replaced, state.waiting.remove(&device.id).unwrap_or_default())
        };
        if let Some((holder, clients)) = replaced {
            holder.outbox.refuse(&Refusal::Replaced(holder.id.clone()));
            self.disconnect_clients(&holder, clients);
        }
        self.observer.device_registered(device);
        for client in waiting {
            client.wake_session();
        }
        Ok(())
    }

    /// Unregisters a device, if it is still the one registered, and tells its clients.
    pub fn unregister(&self, device: &Arc<Device>) {
        let clients = {
            let mut state = self.state.lock();
            match state.devices.get(&device.id) {
                Some(holder) if Arc::ptr_eq(holder, device) => state.devices.remove(&device.id),
                // Replaced: whoever replaced it has told its clients.
                _ => return,
            };
            state.leave(device)
        };
        self.disconnect_clients(device, clients);
    }

    /// Tells the clients of a device that has left.
    fn disconnect_clients(&self, device: &Arc<Device>, clients: Vec<Arc<Client>>) {
        for client in clients {
            client.outbox.refuse(&Refusal::DeviceDisconnected);
            self.observe_leaving(device, &client);
        }
        self.observer.device_left(device);
    }

    /// The device of this name.
    pub fn device(&self, id: &DeviceId) -> Option<Arc<Device>> {
        self.state.lock().devices.get(id).cloned()
    }

    /// The device of this name; where there is none, `waiter` is nudged once it registers.
    pub fn device_or_wait(&self, id: &DeviceId, waiter: &Arc<Outbox>) -> Option<Arc<Device>> {
        let mut state = self.state.lock();
        let device = state.devices.get(id).cloned();
        if device.is_none() {
            let waiting = state.waiting.entry(id.clone()).or_default();
            if !waiting.iter().any(|other| Arc::ptr_eq(other, waiter)) {
                waiting.push(Arc::clone(waiter));
            }
        }
        device
    }

    /// `waiter` no longer waits for this device.
    pub fn stop_waiting(&self, id: &DeviceId, waiter: &Arc<Outbox>) {
        let mut state = self.state.lock();
        if let Some(waiting) = state.waiting.get_mut(id) {
            waiting.retain(|other| !Arc::ptr_eq(other, waiter));
            if waiting.is_empty() {
                state.waiting.remove(id);
            }
        }
    }

    /// How many clients wait for a device.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting.values().map(Vec::len).sum()
    }

    /// Connects a client to a device; `None` if that has left in the meantime.
    ///
    /// # Errors
    /// [`Refusal::ClientIdsExhausted`], and [`Refusal::TooManyClients`] where `max_clients` are connected to it.
    pub fn attach(
        &self,
        device: &Device,
        info: Text,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
        max_clients: usize,
    ) -> Result<Option<Arc<Client>>, Refusal> {
        let client = device.attach(info, peer, outbox, max_clients)?;
        if let Some(client) = &client {
            self.observer.client_connected(device, client);
        }
        Ok(client)
    }

    /// Disconnects a client from its device, which is told.
    pub fn detach(&self, device: &Device, client: &Client) {
        device.detach(client);
        self.observe_leaving(device, client);
    }

    fn observe_leaving(&self, device: &Device, client: &Client) {
        if !client.left.swap(true, Ordering::AcqRel) {
            self.observer.client_left(device, client);
        }
    }

    /// How many devices there are.
    pub fn device_count(&self) -> usize {
        self.state.lock().devices.len()
    }

    /// Every device, by id.
    pub fn devices(&self) -> Vec<Arc<Device>> {
        let mut devices: Vec<_> = self.state.lock().devices.values().cloned().collect();
        devices.sort_by(|a, b| a.id.cmp(&b.id));
        devices
    }

    /// How many connections there are, registered or not.
    pub fn connections(&self) -> usize {
        self.state.lock().peers.len()
    }

    /// The ICE servers have changed: every device asks for its config again.
    pub fn renew_config(&self) {
        self.ice_generation.fetch_add(1, Ordering::AcqRel);
        for device in self.devices() {
            device.outbox.wake_session();
        }
    }

    /// Which ICE servers are the latest.
    pub fn ice_generation(&self) -> u64 {
        self.ice_generation.load(Ordering::Acquire)
    }
}
