//! The events of the world.

use cuttlefish_signaling::core::cluster::Registration;
use cuttlefish_signaling::core::cluster::claim::Probe;
use cuttlefish_signaling::core::cluster::registry::{Delta, NodeRecord, Operation, Reply};
use cuttlefish_signaling::protocol::DeviceId;

/// An event of the world.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// A process that was stopped goes on.
    Wake { node: usize },
    /// The next timeout of a node is due.
    Timer { node: usize },
    /// A node has a connection to the engine.
    Connected { node: usize, connection: u64 },
    /// A node notices the loss of its connection, or that none can be made.
    Lost { node: usize, connection: Option<u64> },
    /// An operation reaches the engine.
    Operation { node: usize, connection: u64, number: u64, operation: Operation },
    /// An answer reaches a node.
    Reply { node: usize, connection: u64, number: u64, reply: Reply },
    /// A change reaches a node.
    Delta { node: usize, connection: u64, delta: Delta },
    /// A node asks another whether a holder is alive.
    Probe { from: usize, to: usize, id: DeviceId, claimant: Registration, holder: Registration },
    /// The answer.
    Probed { from: usize, id: DeviceId, claimant: Registration, holder: Registration, probe: Probe },
    /// A node asks another whether it is this incarnation.
    Hello { from: usize, to: usize, node: NodeRecord },
    /// The answer.
    Greeted { from: usize, node: NodeRecord, probe: Probe },
}

impl Event {
    /// Returns the node whose process handles the event; none for those of the engine and of questions between nodes.
    pub(crate) fn node(&self) -> Option<usize> {
        match self {
            Self::Wake { node }
            | Self::Timer { node }
            | Self::Connected { node, .. }
            | Self::Lost { node, .. }
            | Self::Reply { node, .. }
            | Self::Delta { node, .. } => Some(*node),
            Self::Probed { from, .. } | Self::Greeted { from, .. } => Some(*from),
            Self::Operation { .. } | Self::Probe { .. } | Self::Hello { .. } => None,
        }
    }
}
