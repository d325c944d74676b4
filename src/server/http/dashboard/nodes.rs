//! The cluster in the event `overview`: the state of this node, and the nodes.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::core::peer::Grant;
use crate::server::cluster::handle::Cluster;
use crate::server::cluster::surveyed::SurveyedNode;
use crate::server::shared::Shared;

/// The cluster, as this node knows it.
#[derive(Serialize)]
pub(super) struct ClusterState {
    /// The name of this node.
    node: String,
    /// Its state: `in`, `alone`, `rejoining` or `draining`.
    state: &'static str,
    /// The time since which the registry could not be asked, in seconds since 1970. `None` if it can be asked.
    stale_since: Option<f64>,
    /// The nodes. `None` for a viewer that may see some devices only: it must not find out about others.
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<NodeRow>>,
}

/// A node of the cluster.
#[derive(Serialize)]
struct NodeRow {
    /// The name.
    name: String,
    /// Whether it is this node.
    is_this: bool,
    /// The state.
    state: &'static str,
    /// The address at which other nodes reach it.
    address: String,
    /// The version of its program.
    build: String,
    /// The devices that it has, by the registry.
    devices: usize,
    /// The clients of its devices; `None` if they are not known.
    clients: Option<usize>,
    /// Whether it has other settings than this node.
    differs: bool,
}

impl ClusterState {
    /// Reads the state for a viewer.
    pub(super) fn of(shared: &Shared, cluster: &Cluster, grant: &Grant) -> Self {
        let drains = shared.drain.begun.is_cancelled();
        let surveyed = || cluster.surveyed(drains, shared.hub.client_count()).into_iter().map(NodeRow::of).collect();
        Self {
            node: cluster.incarnation.node().to_owned(),
            state: cluster.standing(drains).as_str(),
            stale_since: cluster.stale_for().map(|age| {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                // Whole seconds, so that the same event is not sent again.
                now.saturating_sub(age).as_secs_f64().round()
            }),
            nodes: grant.devices.is_none().then(surveyed),
        }
    }
}

impl NodeRow {
    fn of(node: SurveyedNode) -> Self {
        let SurveyedNode { name, is_this, standing, address, build, devices, clients, differs } = node;
        Self { name, is_this, state: standing.as_str(), address, build, devices, clients, differs }
    }
}
