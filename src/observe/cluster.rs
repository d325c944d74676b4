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

/// Counters of one node, since its start.
#[derive(Debug)]
pub struct ClusterCounts {
    operations: Histogram,
    rejoins: [AtomicU64; CAUSES.len()],
    claims: [AtomicU64; OUTCOMES.len()],
    resyncs: AtomicU64,
    proxied: [AtomicU64; DIRECTIONS.len()],
}

impl Default for ClusterCounts {
    fn default() -> Self {
        Self {
            operations: Histogram::new(OPERATIONS),
            rejoins: Default::default(),
            claims: Default::default(),
            resyncs: AtomicU64::new(0),
            proxied: Default::default(),
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

    /// Counts that the directory is read again.
    pub fn count_resync(&self) {
        self.resyncs.fetch_add(1, Relaxed);
    }

    /// Counts a client between nodes, until the guard is dropped.
    pub fn enter(self: &Arc<Self>, direction: Direction) -> ProxiedClient {
        self.proxied[direction as usize].fetch_add(1, Relaxed);
        ProxiedClient { counts: Arc::clone(self), direction }
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
