//! Nodes, and devices of other nodes, as this one knows them: from memory, whichever nodes answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::handle::Cluster;
use crate::core::cluster::directory::Known;
use crate::core::cluster::facts::DeviceFacts;
use crate::core::cluster::registry::NodeRecord;
use crate::protocol::DeviceId;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The name of the node.
    pub name: String,
    /// This start of it.
    pub incarnation: String,
    /// The address at which other nodes reach it.
    pub address: String,
    /// Whether it can be used.
    pub state: NodeState,
    /// The version of its program.
    pub build: String,
    /// The devices that it has, by the registry.
    pub devices: usize,
}

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeState {
    /// It is the node that was asked.
    This,
    /// It renews its lease.
    Alive,
    /// It is about to stop, and takes no new peers.
    Draining,
    /// The node that was asked cannot reach it, or its lease has run out and its devices are kept for a time.
    Unreachable,
}

impl NodeState {
    /// The name, as lists have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::This => "this",
            Self::Alive => "alive",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A device of another node, as the registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteDevice {
    /// The id.
    pub id: DeviceId,
    /// The name of its node.
    pub node: String,
    /// The facts that its node has published.
    pub facts: Arc<DeviceFacts>,
}

impl Cluster {
    /// For how long there has been no engine, if there is none now. Lists are as old as that.
    pub(crate) fn stale_for(&self) -> Option<Duration> {
        self.read(|membership| membership.away_for(Instant::now()))
    }

    /// The number of devices that the registry has for this node.
    pub(crate) fn claimed_count(&self) -> usize {
        self.read(|membership| membership.directory().devices_of(&self.incarnation))
    }

    /// The ids of this node that the registry has for it.
    pub(crate) fn claimed(&self) -> HashSet<DeviceId> {
        self.read(|membership| membership.directory().of_node(&self.incarnation).map(|(id, _)| id.clone()).collect())
    }

    /// The nodes with a lease, and those whose devices are left, sorted by name.
    pub(crate) fn nodes(&self) -> Vec<NodeView> {
        self.read(|membership| {
            let (nodes, directory) = (membership.nodes(), membership.directory());
            let count = |record: &NodeRecord| directory.devices_of(&record.incarnation);
            nodes
                .records()
                // A node that has left keeps its record for a time.
                .filter(|record| {
                    let node = &record.incarnation;
                    *node == self.incarnation || nodes.is_live(node) || directory.devices_of(node) > 0
                })
                .filter_map(|record| self.view(record, nodes.is_live(&record.incarnation), count(record)))
                .collect()
        })
    }

    fn view(&self, record: &NodeRecord, is_live: bool, devices: usize) -> Option<NodeView> {
        let details = self.details.of(record)?;
        let is_reached = is_live && !self.survey.reach.is_unreachable(&record.incarnation);
        let state = match (record.incarnation == self.incarnation, is_reached, details.draining) {
            (true, _, _) => NodeState::This,
            (false, false, _) => NodeState::Unreachable,
            (false, true, true) => NodeState::Draining,
            (false, true, false) => NodeState::Alive,
        };
        Some(NodeView {
            name: record.incarnation.node().to_owned(),
            incarnation: record.incarnation.to_string(),
            address: details.address.clone(),
            state,
            build: details.build.clone(),
            devices,
        })
    }

    /// The devices of other nodes, sorted by id.
    pub(crate) fn remote_devices(&self) -> Vec<RemoteDevice> {
        self.read(|membership| membership.directory().iter().filter_map(|(id, entry)| self.remote(id, entry)).collect())
    }

    /// A device of another node.
    pub(crate) fn remote_device(&self, id: &DeviceId) -> Option<RemoteDevice> {
        self.read(|membership| membership.directory().get(id).and_then(|entry| self.remote(id, entry)))
    }

    /// The revision of the copy of the registry.
    pub(crate) fn directory_revision(&self) -> u64 {
        self.read(|membership| membership.directory().revision())
    }

    /// Up to `most` entries of the copy behind `after`, sorted by id.
    pub(crate) fn entries_after(&self, after: Option<&DeviceId>, most: usize) -> Vec<(DeviceId, Known)> {
        let copied = |(id, entry): (&DeviceId, &Known)| (id.clone(), entry.clone());
        self.read(|membership| membership.directory().after(after, most).map(copied).collect())
    }

    /// Whether an entry is that of a device of another node.
    pub(crate) fn is_other(&self, entry: &Known) -> bool {
        *entry.registration.incarnation() != self.incarnation
    }

    /// The number of entries of other nodes.
    pub(crate) fn entries_of_others(&self) -> usize {
        self.read(|membership| {
            let directory = membership.directory();
            directory.len() - directory.devices_of(&self.incarnation)
        })
    }

    /// Whether the registry has these devices for this node (true), for another (false), or not at all.
    pub(crate) fn holders_here<'a>(&self, ids: impl Iterator<Item = &'a DeviceId>) -> Vec<Option<bool>> {
        self.read(|membership| {
            let holder = |id| membership.directory().get(id).map(|entry| entry.registration.incarnation());
            ids.map(|id| holder(id).map(|node| *node == self.incarnation)).collect()
        })
    }

    /// A device of another node, from its entry.
    pub(crate) fn remote(&self, id: &DeviceId, entry: &Known) -> Option<RemoteDevice> {
        let node = entry.registration.incarnation();
        self.is_other(entry).then(|| RemoteDevice {
            id: id.clone(),
            node: node.node().to_owned(),
            facts: Arc::clone(&entry.facts),
        })
    }
}
