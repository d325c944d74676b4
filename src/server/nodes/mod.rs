//! A node of a cluster at work: it drives the membership, answers other nodes, and connects to them.
//!
//! - [`drive`]: the task that does what the membership wants.
//! - [`listener`] and [`routes`]: requests of other nodes. [`identity`] has the certificates of both sides.
//! - [`client`]: requests to other nodes. [`neighbours`]: what is known of each, and the connections in both directions.
//!   [`dials`], [`idle`] and [`tickets`]: turns to make them, those that wait for the next client, and their TLS tickets.
//! - [`forwards`]: requests of clients that another node answers.
//! - [`reach`]: whether this node reaches the others, and whether they have its settings.
//! - [`survey`]: the state of other nodes, while a dashboard is open.
//! - [`locate`], [`looks`] and [`upstream`]: clients of this node whose device is on another one.

mod ask;
mod client;
mod dials;
mod drive;
mod error;
mod forwards;
mod hello;
mod identity;
mod idle;
mod listener;
mod locate;
mod log_limit;
mod looks;
mod neighbours;
mod node;
mod outage;
mod probe;
mod reach;
mod routes;
mod survey;
mod tickets;
mod upstream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Mutex as AsyncMutex, watch};

use self::identity::Identity;
use self::listener::NodeListener;
use self::log_limit::LogLimit;
use self::looks::Looks;
use self::neighbours::Neighbours;
use self::node::{Node, digest};
use super::cluster::details::{NodeDetails, PROTOCOL};
use super::cluster::engine::Engine;
use super::cluster::handle::Cluster;
use super::http::service::Routes;
use super::settings::Settings;
use super::shared::Shared;
use crate::config::cluster::Cluster as ClusterSettings;
use crate::config::error::{ConfigError, Error};
use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::{NodeRecord, Timing};

/// A node that listens for others and has not begun to join.
pub(super) struct BoundNode {
    listener: NodeListener,
    identity: Identity,
    details: NodeDetails,
    engine: Arc<dyn Engine>,
    timing: Timing,
    /// The cluster, for the sessions.
    pub(super) cluster: Arc<Cluster>,
}

impl BoundNode {
    /// Listens for other nodes. It needs no runtime.
    ///
    /// # Errors
    /// [`Error::Config`] for invalid settings, [`Error::Bind`] if the node cannot listen, [`Error::Tls`] if it can make no
    /// certificate.
    pub(super) fn bind(settings: &Settings, own: &ClusterSettings, engine: Arc<dyn Engine>) -> Result<Self, Error> {
        let incarnation = Incarnation::new(&own.node, fastrand::u64(..))
            .ok_or_else(|| ConfigError::new("cluster.node", format!("{:?} is not a name of a node", own.node)))?;
        let identity = Identity::generate()?;
        let listener = NodeListener::bind(own.listen, &identity)?;
        let details = NodeDetails {
            address: own.address.clone().unwrap_or_else(|| listener.address.to_string()),
            fingerprint: identity.fingerprint(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            digest: digest(settings),
            draining: false,
            others: serde_json::Map::new(),
        };
        let record = NodeRecord { incarnation, details: details.to_json().into() };
        let cluster = Cluster::new(record, own.timing.clone(), own.hold_on_outage);
        Ok(Self { listener, identity, details, engine, timing: own.timing.clone(), cluster })
    }

    /// The address that the node listens on for others.
    pub(super) fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// Starts to join, and to answer other nodes, on the current tokio runtime.
    pub(super) fn start(self, shared: &Arc<Shared>, routes: &Routes) {
        let Self { listener, identity, details, engine, timing, cluster } = self;
        let neighbours = Neighbours::new(identity, &shared.settings().limits);
        let (shared, commands) = (Arc::clone(shared), watch::Sender::new(None));
        let node = Arc::new(Node {
            shared,
            routes: routes.clone(),
            cluster,
            engine,
            timing,
            fixed: details,
            commands,
            neighbours,
            looks: Looks::default(),
            log_limit: LogLimit::default(),
            nodes_read: AsyncMutex::default(),
        });
        let weak = Arc::downgrade(&node.cluster);
        node.shared.preregistrations.on_cancelled(move |ids| {
            if let Some(cluster) = weak.upgrade() {
                cluster.with(|membership| membership.cancel(ids, Instant::now()));
            }
        });
        let tasks = &node.shared.tasks;
        tasks.spawn(listener.accept(Arc::clone(&node)));
        tasks.spawn(ask::answer_all(Arc::clone(&node)));
        tasks.spawn(forwards::send_all(Arc::clone(&node)));
        tasks.spawn(outage::watch(Arc::clone(&node)));
        node.spawn(survey::ask_all(Arc::clone(&node)));
        node.spawn(reach::look(Arc::clone(&node)));
        tasks.spawn(drive::drive(Arc::clone(&node)));
    }
}
