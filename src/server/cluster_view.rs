//! The cluster as a running node of it sees it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Method;

use super::Running;
use super::cluster::ask::NodeUnreachable;
use super::cluster::engine::EngineError;
use super::cluster::view::{NodeView, RemoteDevice};
use crate::core::cluster::Membership;
use crate::protocol::DeviceId;

impl Running {
    /// The address for other nodes, if the server is a node of a cluster.
    pub fn node_address(&self) -> Option<SocketAddr> {
        self.node_address
    }

    /// The name of this node, if the server is a node of a cluster.
    pub fn node_name(&self) -> Option<&str> {
        self.shared.cluster.as_ref().map(|cluster| cluster.incarnation.node())
    }

    /// The nodes of the cluster, as far as this one knows, sorted by name. Empty without a cluster.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.shared.cluster.as_ref().map(|cluster| cluster.nodes()).unwrap_or_default()
    }

    /// Whether the node is a member of its cluster, which needs the engine.
    pub fn is_member(&self) -> bool {
        self.shared.cluster.as_ref().is_some_and(|cluster| cluster.read(Membership::is_member))
    }

    /// Why the node has not joined: the kind of the latest error of the engine, with its text. `None` before the first
    /// one, and once the node is a member.
    pub fn engine_failure(&self) -> Option<EngineError> {
        self.shared.cluster.as_ref().and_then(|cluster| cluster.engine.lock().failure.clone())
    }

    /// The node that has a device, by the directory of this one.
    pub fn node_of(&self, id: &DeviceId) -> Option<String> {
        let cluster = self.shared.cluster.as_ref()?;
        cluster.read(|membership| {
            let entry = membership.directory().get(id)?;
            Some(entry.registration.incarnation().node().to_owned())
        })
    }

    /// The devices of other nodes, sorted by id. Empty without a cluster.
    pub fn remote_devices(&self) -> Vec<RemoteDevice> {
        self.shared.cluster.as_ref().map(|cluster| cluster.remote_devices()).unwrap_or_default()
    }

    /// A device of another node.
    pub fn remote_device(&self, id: &DeviceId) -> Option<RemoteDevice> {
        self.shared.cluster.as_ref()?.remote_device(id)
    }

    /// Ends the connection of a device of another node, or of one of its clients. Returns whether there was one.
    ///
    /// # Errors
    /// [`NodeUnreachable`] if its node does not answer. It may have done it.
    pub fn disconnect_on_other_node(
        &self,
        id: DeviceId,
        client: Option<u32>,
    ) -> impl Future<Output = Result<bool, NodeUnreachable>> + Send + use<> {
        let below = client.map(|client| format!("/clients/{client}")).unwrap_or_default();
        let asked = self.shared.cluster.as_ref().map(|cluster| cluster.ask(id, Method::DELETE, below));
        async move {
            let Some(asked) = asked else { return Ok(false) };
            Ok(asked.await?.is_some())
        }
    }

    /// Asks the node that has a device for it, or for its clients, after a delay. The answer is JSON. `None` if no node
    /// has the device.
    ///
    /// # Errors
    /// [`NodeUnreachable`] if its node does not answer, or if neither this node nor the registry tells which it is.
    pub fn ask_other_node(
        &self,
        id: DeviceId,
        clients: bool,
        delay: Duration,
    ) -> impl Future<Output = Result<Option<String>, NodeUnreachable>> + Send + use<> {
        let below = if clients { "/clients" } else { "" };
        let shared = Arc::clone(&self.shared);
        async move {
            let Some(cluster) = &shared.cluster else { return Ok(None) };
            shared.timers.sleep(delay).await;
            let asked = cluster.ask(id, Method::GET, below.to_owned()).await?;
            Ok(asked.map(|body| String::from_utf8_lossy(&body).into_owned()))
        }
    }

    /// Wakes all that waits for a change of the cluster.
    pub fn mark_cluster(&self) {
        self.shared.changes.mark();
        self.shared.observer.cluster_changed();
    }
}
