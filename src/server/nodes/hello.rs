//! The facts that nodes tell of themselves, and whether a node is the one of its record.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::error::Unreachable;
use super::neighbours::Neighbour;
use super::node::Node;
use crate::core::cluster::Incarnation;
use crate::core::cluster::claim::Probe;
use crate::core::cluster::registry::{Answer, NodeRecord, Operation, Reply};
use crate::protocol::DeviceId;

/// The pause between two reads of the records of all nodes.
const BETWEEN_READS: Duration = Duration::from_millis(100);

/// The cure of a wrong address.
pub(super) const ADDRESS_FIX: &str = "give the node's --cluster-address the HOST:PORT at which other nodes reach it";

/// The answer to `GET /cluster/hello`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The name of the node.
    pub(super) node: String,
    /// Its start.
    pub(super) incarnation: String,
    /// The version of its program.
    pub(super) build: String,
    /// The version of its requests.
    pub(super) protocol: u32,
    /// The digest of its settings.
    pub(super) digest: String,
    /// Whether it is a member, which needs the engine.
    pub(super) engine: bool,
    /// Whether it takes no new peers.
    pub(super) draining: bool,
    /// The number of clients of its devices. Nodes of earlier versions do not tell it.
    #[serde(default)]
    pub(super) clients: Option<usize>,
    /// Whether it reaches the node that asks, as far as it knows. Nodes of earlier versions do not tell it.
    #[serde(default)]
    pub(super) reaches: Option<bool>,
}

impl Node {
    /// The answer of this node to another.
    pub(super) fn hello(&self, asks: Option<&Incarnation>) -> Hello {
        let incarnation = &self.cluster.incarnation;
        let details = self.details();
        Hello {
            node: incarnation.node().to_owned(),
            incarnation: incarnation.to_string(),
            build: details.build,
            protocol: details.protocol,
            digest: details.digest,
            engine: self.commands.borrow().is_some(),
            draining: details.draining,
            clients: Some(self.shared.hub.client_count()),
            reaches: asks.map(|node| !self.cluster.survey.reach.is_unreachable(node)),
        }
    }

    /// Asks a node whether it is the start that its record names, and tells the membership.
    pub(super) fn greet(self: &Arc<Self>, record: NodeRecord) {
        let node = Arc::clone(self);
        self.spawn(async move {
            let probe = match node.neighbours.of(&record) {
                Ok(neighbour) => match node.ask(&neighbour, Method::GET, "/cluster/hello").await {
                    Ok((StatusCode::CONFLICT, _)) => Probe::Gone,
                    // Its certificate has proved which process it is, whatever it answers.
                    Ok(_) => Probe::Alive,
                    Err(error) => node.probe_of(&error),
                },
                Err(error) => node.probe_of(&error),
            };
            node.cluster.with(|membership| membership.on_hello(&record, probe, Instant::now()));
        });
    }

    /// Looks whether this node reaches itself. Looks at others begin anew.
    pub(super) fn on_joined(self: &Arc<Self>) {
        let (own, nodes) = self.cluster.read(|membership| {
            (membership.own_record().clone(), membership.nodes().live().cloned().collect::<Vec<_>>())
        });
        self.neighbours.retain(|incarnation| nodes.contains(incarnation));
        self.cluster.survey.reach.begin_again(Instant::now());
        let node = Arc::clone(self);
        self.spawn(async move { node.look_at_own(&own).await });
    }

    /// Logs that this node does not reach itself.
    async fn look_at_own(self: &Arc<Self>, own: &NodeRecord) {
        let Ok(neighbour) = self.neighbours.of(own) else { return };
        let (address, name) = (neighbour.address.clone(), own.incarnation.node());
        let Err(error) = self.look_at(&neighbour).await else { return };
        if self.log_limit.is_due((name, &address, error.to_string()), Instant::now()) {
            let what = "this node does not reach itself at its own address, so that others may not reach it either";
            tracing::warn!(event = "cluster_address", node = name, address, reason = %error, "{what}: {address}: {error}; {ADDRESS_FIX}");
        }
    }

    /// Returns a node by its start, from its record, which is read from the engine if it is not known.
    pub(super) async fn neighbour(self: &Arc<Self>, incarnation: &Incarnation) -> Result<Arc<Neighbour>, Unreachable> {
        let record = || self.cluster.read(|membership| membership.nodes().record(incarnation).cloned());
        if let Some(record) = record() {
            return self.neighbours.of(&record);
        }
        self.read_nodes().await;
        self.neighbours.of(&record().ok_or(Unreachable::Details)?)
    }

    /// Reads the records of all nodes from the engine, unless another task has begun to do so meanwhile.
    ///
    /// Strangers can cause it, so it is done at most ten times a second.
    pub(super) async fn read_nodes(&self) {
        let asked_at = Instant::now();
        let mut began = self.nodes_read.lock().await;
        if let Some(last) = *began {
            if last >= asked_at {
                return;
            }
            self.shared.timers.sleep_until(last + BETWEEN_READS).await;
        }
        *began = Some(Instant::now());
        let Some(commands) = self.commands.borrow().clone() else { return };
        let read = commands.execute(Operation::Nodes);
        if let Some(Ok(Answer { reply: Reply::Nodes(records), .. })) =
            self.shared.timers.timeout(self.timing.operation, read).await
        {
            self.cluster.with(|membership| membership.on_nodes(&records));
        }
    }

    /// Returns the living node that has a certificate with this fingerprint. It is looked up in the engine if it is not known.
    pub(super) async fn living_by_engine(&self, fingerprint: &str) -> Option<Incarnation> {
        if let Some(node) = self.living(fingerprint) {
            return Some(node);
        }
        self.read_nodes().await;
        self.living(fingerprint)
    }

    /// Returns the living node that has a certificate with this fingerprint.
    pub(super) fn living(&self, fingerprint: &str) -> Option<Incarnation> {
        self.cluster.read(|membership| {
            let nodes = membership.nodes();
            let has = |node: &&Incarnation| {
                let neighbour = nodes.record(node).and_then(|record| self.neighbours.of(record).ok());
                neighbour.is_some_and(|neighbour| neighbour.fingerprint == fingerprint)
            };
            nodes.live().find(has).cloned()
        })
    }

    /// Whether a fingerprint is that of this node or of a living one.
    pub(super) fn is_own_or_living(&self, fingerprint: &str) -> bool {
        fingerprint == self.fixed.fingerprint || self.living(fingerprint).is_some()
    }

    /// Looks whether this node still holds an id.
    pub(super) fn check(&self, id: &DeviceId) {
        self.cluster.with(|membership| membership.check(id, Instant::now()));
    }
}

/// Logs that another living node has the name of this one.
pub(super) fn log_name_taken(node: &Node, other: &NodeRecord) {
    let own = node.cluster.incarnation.node();
    let address = node.neighbours.of(other).map(|other| other.address.clone()).unwrap_or_default();
    if !node.log_limit.is_due(("cluster_name_taken", &address), Instant::now()) {
        return;
    }
    let fix = "give this node another name with --node";
    tracing::error!(
        event = "cluster_name_taken",
        node = own,
        address,
        "the node at {address} has the name {own} already, and is alive: {fix}"
    );
}
