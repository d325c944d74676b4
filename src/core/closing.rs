//! The order in which a server that stops closes its connections.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::device::Device;
use super::outbox::{End, Outbox};
use crate::protocol::DeviceId;

/// Connections that are closed together.
#[derive(Debug)]
pub enum Turn {
    /// A device with its clients. The clients are closed first, so their reason is the stop, not the loss of the device.
    Device(Arc<Device>),
    /// Any other connection: a client that waits, a peer that has not registered, a control connection.
    Connection(Arc<Outbox>),
}

impl Turn {
    /// Closes them.
    pub fn close(&self, end: &End) {
        match self {
            Self::Device(device) => {
                for client in device.clients() {
                    client.outbox.close(None, end.clone());
                }
                device.outbox.close(None, end.clone());
            }
            Self::Connection(outbox) => outbox.close(None, end.clone()),
        }
    }
}

/// Returns the turns of all connections, in the order in which they were added.
pub(super) fn turns(peers: &BTreeMap<u64, Arc<Outbox>>, devices: &HashMap<DeviceId, Arc<Device>>) -> Vec<Turn> {
    let of_devices: HashMap<_, _> = devices.values().map(|device| (Arc::as_ptr(&device.outbox), device)).collect();
    let clients = devices.values().flat_map(|device| device.clients());
    let of_clients: HashSet<_> = clients.map(|client| Arc::as_ptr(&client.outbox)).collect();
    let turn = |outbox: &Arc<Outbox>| match of_devices.get(&Arc::as_ptr(outbox)) {
        Some(device) => Some(Turn::Device(Arc::clone(device))),
        None if of_clients.contains(&Arc::as_ptr(outbox)) => None,
        None => Some(Turn::Connection(Arc::clone(outbox))),
    };
    peers.values().filter_map(turn).collect()
}
