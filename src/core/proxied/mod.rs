//! Connections between peers and another server, which a proxy passes on unchanged.
//!
//! [`tap`] reads the messages of one connection, and books them into hub, journal and ledger. This module has
//! what the connections share: which peers of a pair are here.
//!
//! A forward passes here twice if both of its peers are connected through this proxy: from its sender to the other
//! server, and from there to its receiver. It is booked once, and faults apply to it once: on the connection of the
//! receiver if that is known to be here, else on the connection of the sender.
//!
//! The other server tells a client's id to the device alone. So a client has a number of this proxy, until a `client_msg`
//! arrives at the device with a payload that this client has sent.

pub mod tap;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::hub::{Client, Device, Hub};
use super::outbox::Outbox;
use super::peer::Peer;
use crate::protocol::{ClientId, DeviceId};
use crate::sync::Mutex;

/// Payloads of a client that are remembered until one of them arrives at the device.
const MAX_REMEMBERED: usize = 8;

/// The peers that are connected through one proxy.
#[derive(Debug)]
pub struct ProxiedPeers {
    devices: Mutex<HashMap<DeviceId, Known>>,
    token: u64,
}

impl Default for ProxiedPeers {
    fn default() -> Self {
        Self { devices: Mutex::default(), token: fastrand::u64(..) }
    }
}

/// The peers of one device.
#[derive(Debug, Default)]
struct Known {
    /// Connections on which the device is registered: at most one, or two while one replaces the other.
    registered: usize,
    /// Clients by the id that the other server gave them, once the device has got a message of them. `None`: the client
    /// is not connected through this proxy.
    heard: HashMap<ClientId, Option<Arc<ProxiedClient>>>,
    /// Clients in the order in which they connected.
    clients: Vec<Arc<ProxiedClient>>,
}

/// A client that is connected through this proxy.
#[derive(Debug, Default)]
pub struct ProxiedClient(Mutex<ClientState>);

#[derive(Debug, Default)]
struct ClientState {
    /// Id that the other server has given it, once that is known.
    id: Option<ClientId>,
    /// Hashes of the payloads that it has sent.
    sent: Vec<u64>,
    /// Its entry in the hub.
    seen: Option<(Arc<Device>, Arc<Client>)>,
    left: bool,
}

impl ProxiedPeers {
    /// Returns a number that no other proxy has.
    pub fn token(&self) -> u64 {
        self.token
    }

    fn with<T>(&self, device: &DeviceId, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut devices = self.devices.lock();
        let known = devices.entry(device.clone()).or_default();
        let result = change(known);
        if known.registered == 0 && known.clients.is_empty() {
            devices.remove(device);
        }
        result
    }

    /// Returns whether the device is registered through this proxy.
    pub(super) fn is_registered(&self, device: &DeviceId) -> bool {
        self.devices.lock().get(device).is_some_and(|known| known.registered > 0)
    }

    fn register(&self, device: &DeviceId) {
        self.with(device, |known| known.registered += 1);
    }

    fn unregister(&self, device: &DeviceId) {
        self.with(device, |known| {
            known.registered -= 1;
            known.heard.clear();
        });
    }

    fn connect(&self, device: &DeviceId) -> Arc<ProxiedClient> {
        let client = Arc::default();
        self.with(device, |known| known.clients.push(Arc::clone(&client)));
        client
    }

    fn disconnect(&self, device: &DeviceId, client: &Arc<ProxiedClient>) {
        self.with(device, |known| known.clients.retain(|other| !Arc::ptr_eq(other, client)));
    }

    /// Returns the client of an id, whose message with this payload has come to the device, if it is connected through
    /// this proxy.
    fn identify(&self, device: &DeviceId, id: ClientId, payload: &str) -> Option<Arc<ProxiedClient>> {
        self.with(device, |known| {
            if let Some(heard) = known.heard.get(&id) {
                return heard.clone();
            }
            let hash = hash_of(payload);
            let found = known.clients.iter().find(|client| client.takes(id, hash)).cloned();
            known.heard.insert(id, found.clone());
            found
        })
    }

    /// Returns whether the client with this id is connected through this proxy, as far as that is known.
    fn has_client(&self, device: &DeviceId, id: ClientId) -> bool {
        let devices = self.devices.lock();
        let heard = devices.get(device).and_then(|known| known.heard.get(&id));
        heard.is_some_and(|client| client.as_ref().is_some_and(|client| !client.0.lock().left))
    }

    fn forget(&self, device: &DeviceId, id: ClientId) {
        self.with(device, |known| known.heard.remove(&id));
    }
}

impl ProxiedClient {
    /// Returns the id that the other server has given it, if that is known.
    fn id(&self) -> Option<ClientId> {
        self.0.lock().id
    }

    /// Returns its number: the id of the other server, or the one of the hub.
    fn number(&self) -> Option<ClientId> {
        let state = self.0.lock();
        state.id.or_else(|| state.seen.as_ref().map(|(_, client)| client.id))
    }

    /// Remembers a payload that it sends, until its id is known.
    fn sends(&self, payload: &str) {
        let mut state = self.0.lock();
        if state.id.is_none() && state.sent.len() < MAX_REMEMBERED {
            state.sent.push(hash_of(payload));
        }
    }

    /// Gives it this id if it has none, and has sent this payload.
    fn takes(&self, id: ClientId, hash: u64) -> bool {
        let mut state = self.0.lock();
        let takes = state.id.is_none() && state.sent.contains(&hash);
        if takes {
            state.id = Some(id);
            state.sent = Vec::new();
        }
        takes
    }

    /// Enters it into the hub under the id that the other server has given it.
    fn renumber(&self, hub: &Hub, id: ClientId) {
        let mut state = self.0.lock();
        let Some((device, client)) = state.seen.take_if(|(_, client)| client.id != id) else { return };
        hub.detach(&device, &client);
        let entered = hub.attach_seen(&device, &client.peer, &client.outbox, Some(id));
        let entered = entered.or_else(|| hub.attach_seen(&device, &client.peer, &client.outbox, None));
        state.seen = entered.map(|client| (device, client));
    }
}

impl Hub {
    /// Adds a client that another server has connected. `id` is the one that it gave the client, if that is known.
    ///
    /// `None` if the device has left, or has a client with this id.
    fn attach_seen(
        &self,
        device: &Arc<Device>,
        peer: &Arc<Peer>,
        outbox: &Arc<Outbox>,
        id: Option<ClientId>,
    ) -> Option<Arc<Client>> {
        let announce = |client: &Arc<Client>| self.announcements.client_connected(device, client);
        let client = device.attach(device.info.clone(), peer, outbox, usize::MAX, id, announce).ok().flatten();
        self.announcements.deliver();
        client
    }
}

/// Hashes a payload by its value: another server may write it in another way.
fn hash_of(payload: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    match serde_json::from_str::<serde_json::Value>(payload) {
        Ok(value) => value.to_string().hash(&mut hasher),
        Err(_) => payload.hash(&mut hasher),
    }
    hasher.finish()
}
