//! Acts that a membership leaves to its caller.

use std::sync::Arc;
use std::time::Duration;

use super::claim::Outcome;
use super::names::Registration;
use super::registry::{Expectation, NodeRecord, Operation};
use crate::protocol::DeviceId;

/// Act that the caller has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect to the engine, and subscribe to its feed. Answer: [`super::Membership::on_connected`] or
    /// [`super::Membership::on_lost`].
    Connect,
    /// Drop the connection to the engine.
    Disconnect,
    /// Send an operation. Answer: [`super::Membership::on_reply`] with the number, or [`super::Membership::on_lost`].
    Send {
        /// Number of the operation, unique in this node.
        number: u64,
        /// The operation.
        operation: Operation,
    },
    /// Ask another node whether it is this incarnation. Answer: [`super::Membership::on_hello`].
    Hello(NodeRecord),
    /// Ask the node of `holder`, which may be this one, whether its device is alive. Answer:
    /// [`super::Membership::on_probe`].
    Probe {
        /// Id of the device.
        id: DeviceId,
        /// Registration that wants the id.
        claimant: Registration,
        /// Registration that holds it.
        holder: Registration,
    },
    /// Tell a session the outcome of its claim. A refused claim is over.
    Tell {
        /// Registration that wants the id.
        registration: Registration,
        /// The outcome.
        outcome: Outcome,
    },
    /// Note the announcement of a device that claims its id. The outcome of the claim follows.
    Place {
        /// Registration that wants the id.
        registration: Registration,
        /// Facts of the announcement, as JSON.
        details: Arc<str>,
    },
    /// Tell a control connection the outcomes of its announcement, in order.
    Announced {
        /// Number of the announcement, as the caller has given it.
        number: u64,
        /// The outcomes.
        outcomes: Vec<Expectation>,
    },
    /// Tell the control connection that announced a device: it has registered on another node.
    Registered(DeviceId),
    /// End a session: another registration holds its id.
    End {
        /// Id of the device.
        id: DeviceId,
        /// Registration of the session.
        registration: Registration,
    },
    /// Tell the node of a holder that it was replaced, so that it ends the session at once.
    TellReplaced {
        /// Id of the device.
        id: DeviceId,
        /// Registration that has lost the id.
        holder: Registration,
    },
    /// Take over the ICE servers that all nodes share; `None` once there are none.
    Ice(Option<Arc<str>>),
    /// Wake the clients that wait for these devices: they have registered, here or on another node.
    Appeared(Vec<DeviceId>),
    /// Close all connections of clients of other nodes: this node was paused, and they count it as gone.
    CloseProxied,
    /// Log this.
    Report(Report),
}

/// Event for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The node has joined.
    Joined,
    /// The connection to the engine is lost or cannot be made.
    EngineLost,
    /// The engine did not answer an operation in time.
    EngineSilent,
    /// The registry has forgotten this node, which joins again.
    Forgotten,
    /// Another node that is alive has this node's name.
    NameTaken(NodeRecord),
    /// All records of this node are signed with the new secret.
    Signed,
    /// The node was paused for this long.
    Paused(Duration),
}
