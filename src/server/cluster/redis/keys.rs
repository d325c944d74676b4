//! Names of the keys and of the channel of one service. They share a hash tag, so that one shard has all of them.

use crate::core::cluster::Incarnation;

/// Version of the form of the registry. A node joins a registry of its own version only.
pub(super) const SCHEMA: &str = "1";

/// Names of the keys of one service.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    /// Hash: `schema`, `epoch`, `born` (ms of the engine's clock) and `version`, which is `NUMBER STAMP`.
    pub(super) meta: String,
    /// Sorted set of nodes by the end of their leases, in ms of the engine's clock.
    pub(super) nodes: String,
    /// Hash of `SIGNATURE DETAILS` by node.
    pub(super) records: String,
    /// Hash of `REGISTRATION VERSION SIGNATURE DETAILS` by device.
    pub(super) devices: String,
    /// Hash of `NODE SIGNATURE DETAILS` by announced device.
    pub(super) places: String,
    /// Sorted set of `NODE ID` of announced devices, in the order of the text.
    pub(super) pending: String,
    /// The ICE servers that all nodes share, sealed.
    pub(super) ice: String,
    /// Channel of the feed.
    pub(super) channel: String,
}

impl Keys {
    /// Returns the names of the service `name` in a database. Channels are shared by all databases of an engine.
    pub(super) fn new(name: &str, database: i64) -> Self {
        let prefix = format!("{{cuttlefish:{name}}}:");
        let key = |name: &str| format!("{prefix}{name}");
        let channel = if database == 0 { key("feed") } else { key(&format!("feed:{database}")) };
        let (meta, nodes, records) = (key("meta"), key("nodes"), key("node_records"));
        let (devices, ice) = (key("devices"), key("ice"));
        let (places, pending) = (key("preregistrations"), key("pending"));
        Self { prefix, meta, nodes, records, devices, places, pending, ice, channel }
    }

    /// Returns the beginning of all names.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns the keys of announcements.
    pub(super) fn announced(&self) -> [&str; 2] {
        [&self.places, &self.pending]
    }

    /// Returns the key with the sorted set of the ids of a node.
    pub(super) fn held(&self, node: &Incarnation) -> String {
        format!("{}held:{node}", self.prefix)
    }
}
