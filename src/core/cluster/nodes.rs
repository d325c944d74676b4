//! The nodes that the registry names.

use std::collections::{BTreeMap, BTreeSet};

use super::names::Incarnation;
use super::registry::NodeRecord;

/// Nodes with a lease, and nodes without one whose devices are left.
#[derive(Debug, Default)]
pub struct Nodes {
    live: BTreeSet<Incarnation>,
    /// Records of the nodes that have joined since this one is a member.
    records: BTreeMap<Incarnation, NodeRecord>,
}

impl Nodes {
    /// Returns whether a node has a lease, by the last renewal.
    pub fn is_live(&self, node: &Incarnation) -> bool {
        self.live.contains(node)
    }

    /// Returns the nodes with a lease, by the last renewal, sorted by name.
    pub fn live(&self) -> impl Iterator<Item = &Incarnation> {
        self.live.iter()
    }

    /// Returns the record of a node, if it is known.
    pub fn record(&self, node: &Incarnation) -> Option<&NodeRecord> {
        self.records.get(node)
    }

    /// Returns the records of the nodes with a lease, and of those whose devices are left, sorted by name.
    pub fn records(&self) -> impl Iterator<Item = &NodeRecord> {
        self.records.values()
    }

    /// Begins again with the nodes that have a lease.
    pub(super) fn reset(&mut self, nodes: &[NodeRecord]) {
        self.live = nodes.iter().map(|node| node.incarnation.clone()).collect();
        for node in nodes {
            self.joined(node);
        }
    }

    /// Adds a node with a lease.
    pub(super) fn joined(&mut self, node: &NodeRecord) {
        self.live.insert(node.incarnation.clone());
        self.records.insert(node.incarnation.clone(), node.clone());
    }

    /// Removes the lease of a node. Its record stays while there are devices of it.
    pub(super) fn left(&mut self, node: &Incarnation) {
        self.live.remove(node);
    }

    /// Takes over the nodes that a renewal names. Returns whether the records have to be read: that of a node which had no
    /// lease may be missing, or may have changed meanwhile.
    pub(super) fn renewed(&mut self, nodes: Vec<Incarnation>) -> bool {
        let before = std::mem::replace(&mut self.live, nodes.into_iter().collect());
        !self.live.iter().all(|node| before.contains(node) && self.records.contains_key(node))
    }

    /// Removes the records of nodes that have neither a lease nor devices.
    pub(super) fn retain(&mut self, with_devices: &BTreeSet<Incarnation>) {
        self.records.retain(|node, _| self.live.contains(node) || with_devices.contains(node));
    }
}
