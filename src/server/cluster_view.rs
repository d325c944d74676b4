//! The cluster as a running node of it sees it.

use std::net::SocketAddr;

use super::Running;
use super::cluster::details::NodeDetails;
use crate::core::cluster::Membership;
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
    /// The version of its program.
    pub build: String,
    /// Whether it takes no new peers.
    pub draining: bool,
    /// Whether it is the node that was asked.
    pub is_own: bool,
}

impl Running {
    /// The address for other nodes, if the server is a node of a cluster.
    pub fn node_address(&self) -> Option<SocketAddr> {
        self.node_address
    }

    /// The nodes of the cluster that have a lease, as far as this one knows, sorted by name. Empty without a cluster.
    pub fn nodes(&self) -> Vec<NodeView> {
        let Some(cluster) = &self.shared.cluster else { return Vec::new() };
        let view = |record: &NodeRecord| {
            let details = NodeDetails::of(record)?;
            Some(NodeView {
                name: record.incarnation.node().to_owned(),
                incarnation: record.incarnation.to_string(),
                address: details.address,
                build: details.build,
                draining: details.draining,
                is_own: record.incarnation == cluster.incarnation,
            })
        };
        cluster.read(|membership| {
            let nodes = membership.nodes();
            nodes.live().filter_map(|node| nodes.record(node).and_then(view)).collect()
        })
    }

    /// Whether the node is a member of its cluster, which needs the engine.
    pub fn is_member(&self) -> bool {
        self.shared.cluster.as_ref().is_some_and(|cluster| cluster.read(Membership::is_member))
    }

    /// The node that has a device, by the directory of this one.
    pub fn node_of(&self, id: &DeviceId) -> Option<String> {
        let cluster = self.shared.cluster.as_ref()?;
        cluster.read(|membership| {
            let entry = membership.directory().get(id)?;
            Some(entry.registration.incarnation().node().to_owned())
        })
    }
}
