//! The state that the tasks of a node share.

use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::log_limit::LogLimit;
use super::looks::Looks;
use super::neighbours::Neighbours;
use crate::config::IceSource;
use crate::core::cluster::registry::Timing;
use crate::protocol::IceServers;
use crate::server::cluster::details::NodeDetails;
use crate::server::cluster::engine::{Commands, Engine};
use crate::server::cluster::handle::Cluster;
use crate::server::http::service::Routes;
use crate::server::settings::Settings;
use crate::server::shared::Shared;

/// A node at work. Its tasks share it.
pub(in crate::server) struct Node {
    pub(super) shared: Arc<Shared>,
    /// The routes of peers, for requests that other nodes pass on.
    pub(super) routes: Routes,
    pub(super) cluster: Arc<Cluster>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) timing: Timing,
    /// The facts of this node for the others, but for those that change: see [`Node::details`].
    pub(super) fixed: NodeDetails,
    /// The engine, while this node is a member.
    pub(super) commands: watch::Sender<Option<Arc<dyn Commands>>>,
    pub(super) neighbours: Neighbours,
    /// The devices for which waiting clients look again soon.
    pub(super) looks: Looks,
    /// The causes of warnings that were logged.
    pub(super) log_limit: LogLimit,
    /// When the records of all nodes were read from the engine.
    pub(super) nodes_read: AsyncMutex<Option<Instant>>,
}

impl Node {
    /// The facts of this node for the others, as they are now.
    pub(super) fn details(&self) -> NodeDetails {
        let digest = digest(&self.shared.settings());
        NodeDetails { digest, draining: self.is_draining(), ..self.fixed.clone() }
    }

    /// Takes over the ICE servers that all nodes share. Without them, those of the settings count again.
    pub(super) fn share_ice(&self, config: Option<&str>) {
        let source = match config.map(IceServers::from_command) {
            None => self.shared.settings().ice.clone(),
            Some(Ok((servers, _))) => IceSource::Fixed(servers),
            Some(Err(error)) => {
                // A node of another version checks them otherwise. Those of before stay.
                if !self.log_limit.is_due(("cluster_ice_servers_invalid", error.to_string()), Instant::now()) {
                    return;
                }
                let what = "cannot use the ICE servers that another node has set";
                tracing::warn!(event = "cluster_ice_servers_invalid", reason = %error, "{what}: {error}");
                return;
            }
        };
        self.shared.set_ice_servers(source);
    }

    /// Whether this node is about to stop.
    pub(super) fn is_draining(&self) -> bool {
        self.shared.drain.begun.is_cancelled()
    }

    /// Spawns a task that ends when the server stops.
    pub(super) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = shared.stopping.cancelled() => {}
                () = task => {}
            }
        });
    }
}

/// A digest of the settings that all nodes should have in common.
pub(super) fn digest(settings: &Settings) -> String {
    let ice = match settings.ice {
        IceSource::Fixed(_) => "fixed",
        IceSource::TurnRest(_) => "turn",
        IceSource::Command(_) => "command",
        IceSource::Hook => "hook",
    };
    let common = format!("{ice} {:?} {:?} {:?}", settings.limits, settings.on_duplicate, settings.device_wait_timeout);
    let digest = ring::digest::digest(&ring::digest::SHA256, common.as_bytes());
    STANDARD.encode(&digest.as_ref()[..9])
}
