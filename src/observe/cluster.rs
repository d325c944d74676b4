//! Counters of a node of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::metrics::histogram::Histogram;

/// Bounds of the times of operations of the engine, in seconds. After 1 s, an operation has failed.
const OPERATIONS: [f64; 10] = [0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Causes for which a node joins again.
pub const CAUSES: [&str; 4] = ["lost", "silent", "forgotten", "paused"];

/// Outcomes of claims.
pub const OUTCOMES: [&str; 4] = ["granted", "unclaimed", "refused", "unavailable"];

/// Directions of clients between nodes: clients of this node on others, and clients of others on this node.
pub const DIRECTIONS: [&str; 2] = ["out", "in"];

/// TLS handshakes of connections to other nodes; none for a connection that is used again.
pub const HANDSHAKES: [&str; 3] = ["full", "resumed", "none"];

/// Ends of connections of clients of this node to the node of their device.
pub const ENDINGS: [&str; 3] = ["client_left", "closed", "lost"];

/// Statuses of refused requests of other nodes, and of strangers on the listener for nodes.
pub const REFUSED: [&str; 5] = ["400", "403", "409", "428", "503"];

/// Counters of one node, since its start.
#[derive(Debug)]
pub struct ClusterCounts {
    operations: Histogram,
    rejoins: [AtomicU64; CAUSES.len()],
    claims: [AtomicU64; OUTCOMES.len()],
    resyncs: AtomicU64,
    proxied: [AtomicU64; DIRECTIONS.len()],
    messages: [AtomicU64; DIRECTIONS.len()],
    bytes: [AtomicU64; DIRECTIONS.len()],
    gone: AtomicU64,
    ends: [AtomicU64; ENDINGS.len()],
    connections: [AtomicU64; HANDSHAKES.len()],
    refused: [AtomicU64; REFUSED.len()],
}

impl Default for ClusterCounts {
    fn default() -> Self {
        Self {
            operations: Histogram::new(OPERATIONS),
            rejoins: Default::default(),
            claims: Default::default(),
            resyncs: AtomicU64::new(0),
            proxied: Default::default(),
            messages: Default::default(),
            bytes: Default::default(),
            gone: AtomicU64::new(0),
            ends: Default::default(),
            connections: Default::default(),
            refused: Default::default(),
        }
    }
}

impl ClusterCounts {
    /// Records an operation that the engine has answered.
    pub fn observe_operation(&self, took: Duration) {
        self.operations.observe(took.as_secs_f64());
    }

    /// Counts that the node is no member any more, for one of [`CAUSES`].
    pub fn count_rejoin(&self, cause: &str) {
        count(&CAUSES, &self.rejoins, cause);
    }

    /// Counts a claim with one of [`OUTCOMES`].
    pub fn count_claim(&self, outcome: &str) {
        count(&OUTCOMES, &self.claims, outcome);
    }

    /// Counts a refused request with one of [`REFUSED`]. Returns whether it is one.
    pub fn count_refused(&self, status: &str) -> bool {
        count(&REFUSED, &self.refused, status);
        REFUSED.contains(&status)
    }

    /// Returns the refused requests, by status.
    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(REFUSED, &self.refused)
    }

    /// Counts that the directory is read again.
    pub fn count_resync(&self) {
        self.resyncs.fetch_add(1, Relaxed);
    }

    /// Counts a client between nodes, until the guard is dropped.
    pub fn enter(self: &Arc<Self>, direction: Direction) -> ProxiedClient {
        self.proxied[direction as usize].fetch_add(1, Relaxed);
        ProxiedClient { counts: Arc::clone(self), direction }
    }

    /// Counts forwards of clients of this node: those written for the node of their device, or those that came from there.
    pub fn count_messages(&self, direction: Direction, messages: u64) {
        self.messages[direction as usize].fetch_add(messages, Relaxed);
    }

    /// Counts the bytes of a forward of a client of this node, when it is queued for the other node or comes from there.
    pub fn count_bytes(&self, direction: Direction, bytes: usize) {
        self.bytes[direction as usize].fetch_add(bytes as u64, Relaxed);
    }

    /// Counts forwards of clients of this node that were not written when the connection to the other node ended.
    pub fn count_gone(&self, messages: u64) {
        self.gone.fetch_add(messages, Relaxed);
    }

    /// Counts the end of a connection of a client of this node, which had its device.
    pub fn count_end(&self, ending: Ending) {
        self.ends[ending as usize].fetch_add(1, Relaxed);
    }

    /// Counts a connection to another node.
    pub fn count_connection(&self, handshake: Handshake) {
        self.connections[handshake as usize].fetch_add(1, Relaxed);
    }

    /// Returns the connections to other nodes, by their TLS handshake.
    pub fn connections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(HANDSHAKES, &self.connections)
    }

    /// Returns the forwards between this node and those of its clients' devices, by direction.
    pub fn messages(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(DIRECTIONS, &self.messages)
    }

    /// Returns the bytes of forwards between this node and those of its clients' devices, by direction.
    pub fn bytes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(DIRECTIONS, &self.bytes)
    }

    /// Returns the number of forwards that were not written when the connection to the other node ended.
    pub fn gone(&self) -> u64 {
        self.gone.load(Relaxed)
    }

    /// Returns the ends of connections of clients of this node, by cause.
    pub fn ends(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(ENDINGS, &self.ends)
    }

    /// Returns the histogram of operations.
    pub fn operations(&self) -> &Histogram {
        &self.operations
    }

    /// Returns the number of times that the node was no member any more, by cause.
    pub fn rejoins(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(CAUSES, &self.rejoins)
    }

    /// Returns the number of claims by outcome.
    pub fn claims(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(OUTCOMES, &self.claims)
    }

    /// Returns the number of times that the directory was read.
    pub fn resyncs(&self) -> u64 {
        self.resyncs.load(Relaxed)
    }

    /// Returns the number of clients between nodes now, by direction.
    pub fn proxied(&self) -> impl Iterator<Item = (&'static str, u64)> {
        read(DIRECTIONS, &self.proxied)
    }
}

/// Direction of a client between nodes, in the order of [`DIRECTIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// A client of this node, whose device is on another.
    Out,
    /// A client of another node, whose device is on this one.
    In,
}

/// TLS handshake of a connection to another node, in the order of [`HANDSHAKES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// With certificates and signatures.
    Full,
    /// With a ticket of an earlier connection.
    Resumed,
    /// None: an earlier request or client has left the connection open.
    None,
}

/// Cause for which a connection of a client to the node of its device ends, in the order of [`ENDINGS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client has left.
    ClientLeft,
    /// The other node has closed it: the device has left, or the node stops.
    Closed,
    /// It was lost, or the other node has not answered.
    Lost,
}

/// A client between nodes, which counts until it is dropped.
#[derive(Debug)]
pub struct ProxiedClient {
    counts: Arc<ClusterCounts>,
    direction: Direction,
}

impl Drop for ProxiedClient {
    fn drop(&mut self) {
        self.counts.proxied[self.direction as usize].fetch_sub(1, Relaxed);
    }
}

fn count(names: &[&str], counters: &[AtomicU64], name: &str) {
    if let Some(counter) = names.iter().position(|other| *other == name).and_then(|at| counters.get(at)) {
        counter.fetch_add(1, Relaxed);
    }
}

fn read<const N: usize>(
    names: [&'static str; N],
    counters: &[AtomicU64; N],
) -> impl Iterator<Item = (&'static str, u64)> {
    names.into_iter().zip(counters).map(|(name, counter)| (name, counter.load(Relaxed)))
}
