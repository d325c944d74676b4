//! The two names of a device on a local socket: its name in the cluster, and its own id, an alias on its own node
//! (docs/protocol.md 5.4.9).
//!
//! Every Cuttlefish host has a `cvd-1`. So the node adds its own name to the ids of its local sockets, and nothing beyond
//! the sessions of these sockets knows the ids without it.

use std::collections::HashMap;
use std::sync::Arc;

use super::device::Device;
use crate::protocol::DeviceId;

/// The form of the names of one node: the text before the id of a device, and the text after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalNames {
    before: Box<str>,
    after: Box<str>,
}

impl LocalNames {
    /// Creates the form `before`, id, `after`.
    pub fn new(before: &str, after: &str) -> Self {
        Self { before: before.into(), after: after.into() }
    }

    /// Returns the name in the cluster of the device with this id.
    pub fn name_of(&self, id: &str) -> DeviceId {
        DeviceId::new(&[&*self.before, id, &*self.after].concat())
    }

    /// Returns the id of the device with this name; `None` if no device of this node gets such a name.
    pub fn id_of<'a>(&self, name: &'a DeviceId) -> Option<&'a str> {
        let id = name.as_str().strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        (!id.is_empty()).then_some(id)
    }
}

/// Decides which device of this node an id means.
pub struct Aliases {
    /// The names of devices on local sockets.
    pub names: LocalNames,
    /// Returns whether a device on another node has this id. Then the id is no alias.
    ///
    /// It is called under the lock of the hub, so it must not call the hub.
    pub is_elsewhere: Box<dyn Fn(&DeviceId) -> bool + Send + Sync>,
}

impl std::fmt::Debug for Aliases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Aliases").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Finds a device by its id in the cluster, or else by its alias.
pub(super) fn find<'a>(
    devices: &'a HashMap<DeviceId, Arc<Device>>,
    id: &DeviceId,
    aliases: Option<&Aliases>,
) -> Option<&'a Arc<Device>> {
    match (devices.get(id), aliases) {
        (None, Some(aliases)) => {
            let named = devices.get(&aliases.names.name_of(id.as_str()));
            named.filter(|device| device.said_id() == id && !(aliases.is_elsewhere)(id))
        }
        (found, _) => found,
    }
}
