//! The events of the world.

use std::sync::Arc;

use cuttlefish_signaling::core::cluster::claim::Probe;
use cuttlefish_signaling::core::cluster::registry::{Answer, Delta, NodeRecord, Operation};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::hub::Device;
use cuttlefish_signaling::protocol::DeviceId;

use crate::net::{Frame, LinkId};

/// An event of the world.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process that was stopped goes on.
    Wake,
    /// The next timeout of a membership is due.
    Timer,
    /// The next timeout of a connection is due.
    LinkTimer { link: LinkId },
    /// A node has a connection to the engine.
    Connected { connection: u64 },
    /// A node notices the loss of its connection, or that none can be made.
    Lost { connection: Option<u64> },
    /// An operation reaches the engine.
    Operation { node: usize, connection: u64, number: u64, operation: Operation },
    /// An answer reaches a node.
    Reply { connection: u64, number: u64, answer: Answer },
    /// A change reaches a node.
    Delta { connection: u64, delta: Delta },
    /// A node hears that a change is lost.
    Gap { connection: u64 },
    /// A node asks another whether a holder is alive.
    Probe { from: usize, to: usize, number: u64, holder: Registration },
    /// The ping of a probe has had its time.
    ProbeOver,
    /// A node answers another.
    ProbeAnswered { by: usize, from: usize, number: u64, probe: Probe },
    /// The answer reaches the node, or the time for it is over.
    Probed { number: u64, probe: Probe },
    /// A node asks another whether it is this incarnation.
    Hello { from: usize, to: usize, node: NodeRecord },
    /// The answer.
    Greeted { node: NodeRecord, probe: Probe },
    /// A node tells another that a device of it was replaced.
    Replaced { from: usize, to: usize, holder: Registration },
    /// A message arrives at one end of a connection.
    Frame { link: LinkId, side: usize, frame: Frame },
    /// A connection takes messages again.
    Writable { link: LinkId },
    /// A node asks another for a connection to a device.
    Open { link: LinkId, incarnation: Incarnation, id: DeviceId },
    /// The time for that is over.
    OpenOver { client: LinkId, link: LinkId },
    /// The time for the engine's answer to a search is over.
    ReadOver { client: LinkId },
    /// A hook has the device info for a client.
    DeviceInfo { link: LinkId, device: Arc<Device> },
    /// The connection to another node has failed. Clients of this device look again.
    LookAgain { id: DeviceId },
    /// A node is about to stop.
    Drain,
    /// A node has not heard another for so long that it counts it as gone, unless they have met since.
    Silence { by: usize, of: usize, met: u64 },
}
