//! The size of a farm, and the load that it makes.

use std::collections::BTreeMap;
use std::time::Duration;

/// Size and faults of a farm.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) nodes: usize,
    pub(crate) devices_per_node: usize,
    pub(crate) time: Duration,
    /// Mean time for which a device stays registered.
    pub(crate) stay: Duration,
    /// Pause between losses of a node.
    pub(crate) loss: Duration,
    /// Time at which the engine is lost. It is back, empty, after two seconds.
    pub(crate) failover: Duration,
}

/// Calls of the engine and its CPU, in one phase.
#[derive(Debug, Default, Clone)]
pub(crate) struct Load {
    pub(crate) calls: BTreeMap<&'static str, u64>,
    pub(crate) cpu: Duration,
    pub(crate) changes: u64,
    pub(crate) bytes: u64,
}
