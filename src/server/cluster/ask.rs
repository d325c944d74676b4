//! Requests to the node that has a device. The layers below the nodes make them, and a task of the node sends them.

use hyper::Method;
use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::protocol::DeviceId;

/// The most requests that wait for the task of the node. No setting: it only begins each of them.
const MAX_ASKS: usize = 1024;

/// A request about a device of another node.
pub(in crate::server) struct Ask {
    /// The id of the device.
    pub(in crate::server) id: DeviceId,
    pub(in crate::server) method: Method,
    /// The path behind that of the device: empty, or `/clients/1`.
    pub(in crate::server) below: String,
    /// Told the answer. Closed if it is not needed any more.
    pub(in crate::server) answer: oneshot::Sender<Answered>,
}

/// The body of the answer; `None` if no node has what was asked for.
pub(in crate::server) type Answered = Result<Option<Bytes>, NodeUnreachable>;

/// The reason why the node that has a device cannot be asked. The outcome of the request is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node {node:?}: {what}")]
pub struct NodeUnreachable {
    /// The name of the node.
    pub node: String,
    /// The reason.
    pub what: String,
}

/// The queue of requests.
pub(in crate::server) struct Asks {
    sender: mpsc::Sender<Ask>,
    /// The receiver, until the task of the node takes it.
    received: Mutex<Option<mpsc::Receiver<Ask>>>,
}

impl Asks {
    pub(in crate::server) fn new() -> Self {
        let (sender, received) = mpsc::channel(MAX_ASKS);
        Self { sender, received: Mutex::new(Some(received)) }
    }

    /// Takes the requests. `None` if they were taken already.
    pub(in crate::server) fn take(&self) -> Option<mpsc::Receiver<Ask>> {
        self.received.lock().take()
    }

    /// Asks the node that has a device. `own` is the name of this node, for errors.
    pub(in crate::server) fn ask(
        &self,
        own: &str,
        id: DeviceId,
        method: Method,
        below: String,
    ) -> impl Future<Output = Answered> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        let asked = self.sender.try_send(Ask { id, method, below, answer });
        let failed = |what: &str| NodeUnreachable { node: own.to_owned(), what: what.to_owned() };
        let (full, stopped) = (failed("too many requests to other nodes are under way"), failed("it has stopped"));
        async move {
            match asked {
                Ok(()) => answered.await.unwrap_or(Err(stopped)),
                Err(_) => Err(full),
            }
        }
    }
}
