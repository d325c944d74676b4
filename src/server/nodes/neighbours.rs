//! The other nodes, as this one knows them, and the connections with each.
//!
//! Each pair of nodes that has clients in common has a control connection for each direction. Its loss ends the
//! connections of clients in that direction: those are not pinged, since one under backpressure is not read.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::dials::{Control, Dials};
use super::error::Unreachable;
use super::identity::Identity;
use super::idle::{Idle, Streams};
use crate::config::Limits;
use crate::core::cluster::Incarnation;
use crate::core::cluster::registry::NodeRecord;
use crate::server::cluster::details::NodeDetails;

/// The other nodes.
pub(super) struct Neighbours {
    identity: Identity,
    /// The most clients of this node on one other node.
    max_clients: usize,
    /// The connections that are made to one other node at a time.
    max_dials: usize,
    known: Mutex<HashMap<Incarnation, Known>>,
    /// The control connections that other nodes have made. Cancelled when one is lost.
    from: Mutex<HashMap<Incarnation, CancellationToken>>,
}

/// A node that is known.
struct Known {
    /// Its facts, as its record has them.
    text: Arc<str>,
    neighbour: Arc<Neighbour>,
}

/// Another node.
pub(super) struct Neighbour {
    /// Its start.
    pub(super) incarnation: Incarnation,
    /// The address at which it is reached.
    pub(super) address: String,
    /// The fingerprint of its certificate.
    pub(super) fingerprint: String,
    /// The version of its requests.
    pub(super) protocol: u32,
    /// TLS to it, with the tickets for later connections.
    pub(super) tls: Arc<ClientConfig>,
    /// A permit for each client of this node there.
    pub(super) places: Arc<Semaphore>,
    /// The turns to connect clients to it.
    pub(super) dials: Dials,
    /// Connections to it that have answered the request of a client.
    pub(super) idle: Idle,
    /// Connections to it that a client has left.
    pub(super) left: Streams,
    /// The control connection to it.
    pub(super) control: Control,
}

impl Neighbours {
    pub(super) fn new(identity: Identity, limits: &Limits) -> Self {
        let max_clients = limits.max_connections.min(Semaphore::MAX_PERMITS);
        let max_dials = limits.max_node_dials;
        Self { identity, max_clients, max_dials, known: Mutex::default(), from: Mutex::default() }
    }

    /// Returns the node of a record.
    ///
    /// # Errors
    /// [`Unreachable::Details`] if the record does not tell how to reach it.
    pub(super) fn of(&self, record: &NodeRecord) -> Result<Arc<Neighbour>, Unreachable> {
        let mut known = self.known.lock();
        // Each request asks for its sender, so that the facts are read once.
        if let Some(Known { text, neighbour }) = known.get(&record.incarnation)
            && *text == record.details
        {
            return Ok(Arc::clone(neighbour));
        }
        let details = NodeDetails::of(record).ok_or(Unreachable::Details)?;
        // A node that drains, or has other limits, keeps its connections.
        if let Some(Known { text, neighbour }) = known.get_mut(&record.incarnation)
            && neighbour.is_reached_as(&details)
        {
            *text = Arc::clone(&record.details);
            return Ok(Arc::clone(neighbour));
        }
        let neighbour = Arc::new(Neighbour {
            incarnation: record.incarnation.clone(),
            address: details.address,
            fingerprint: details.fingerprint,
            protocol: details.protocol,
            tls: self.identity.client(self.max_dials).map_err(|error| Unreachable::Failed(error.to_string()))?,
            places: Arc::new(Semaphore::new(self.max_clients)),
            dials: Dials::default(),
            idle: Idle::default(),
            left: Streams::default(),
            control: Control::default(),
        });
        let text = Arc::clone(&record.details);
        known.insert(record.incarnation.clone(), Known { text, neighbour: Arc::clone(&neighbour) });
        Ok(neighbour)
    }

    /// Forgets the nodes for which `keep` is false. Connections with them go on.
    pub(super) fn retain(&self, keep: impl Fn(&Incarnation) -> bool) {
        self.known.lock().retain(|incarnation, _| keep(incarnation));
    }

    /// Closes the connections that have waited this long for the next client or request.
    pub(super) fn close_idle(&self, fresh: Duration) {
        for Known { neighbour, .. } in self.known.lock().values() {
            neighbour.idle.drop_old(fresh);
            neighbour.left.drop_old(fresh);
        }
    }

    /// Notes a control connection that another node has made. It replaces an earlier one, whose clients end by themselves.
    pub(super) fn connected(&self, from: &Incarnation, token: &CancellationToken) {
        let mut all = self.from.lock();
        all.retain(|_, token| !token.is_cancelled());
        all.insert(from.clone(), token.clone());
    }

    /// Returns the control connection that another node has made.
    pub(super) fn connection_from(&self, from: &Incarnation) -> Option<CancellationToken> {
        self.from.lock().get(from).filter(|token| !token.is_cancelled()).cloned()
    }

    /// Ends all connections of clients, in both directions: this node was paused, and the others count it as gone.
    pub(super) fn close_all(&self) {
        for token in self.from.lock().drain().map(|(_, token)| token) {
            token.cancel();
        }
        let known: Vec<_> = self.known.lock().values().map(|known| Arc::clone(&known.neighbour)).collect();
        for neighbour in known {
            neighbour.control.close();
        }
    }
}

impl Neighbour {
    /// Whether these facts say the same of how it is reached.
    fn is_reached_as(&self, details: &NodeDetails) -> bool {
        (&self.address, &self.fingerprint, self.protocol) == (&details.address, &details.fingerprint, details.protocol)
    }
}
