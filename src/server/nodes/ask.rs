//! Sends requests about devices to the nodes that have them.

use std::sync::Arc;

use hyper::body::Bytes;
use hyper::{Method, StatusCode};

use super::node::Node;
use super::probe::path_of;
use crate::core::cluster::{Incarnation, Registration};
use crate::protocol::DeviceId;
use crate::server::cluster::ask::{Answered, Ask, NodeUnreachable};

/// Looks for one device, at most: it may have moved to another node meanwhile.
const LOOKS: usize = 2;

/// Sends the requests until the server stops.
pub(super) async fn answer_all(node: Arc<Node>) {
    let Some(mut asks) = node.cluster.asks.take() else { return };
    let stopping = node.shared.stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            Some(ask) = asks.recv() => {
                let asked = Arc::clone(&node);
                node.spawn(async move { asked.answer_ask(ask).await });
            }
        }
    }
}

/// A request, without its answer.
struct Wanted {
    id: DeviceId,
    method: Method,
    below: String,
}

impl Node {
    async fn answer_ask(self: &Arc<Self>, ask: Ask) {
        let Ask { id, method, below, mut answer } = ask;
        let wanted = Wanted { id, method, below };
        let answered = tokio::select! {
            biased;
            () = answer.closed() => return,
            answered = self.ask_holder(&wanted) => answered,
        };
        // The caller may have left meanwhile.
        let _left = answer.send(answered);
    }

    /// Asks the node that has the device by the directory, and then the one that has it by the registry.
    async fn ask_holder(self: &Arc<Self>, ask: &Wanted) -> Answered {
        let mut known =
            self.cluster.read(|membership| membership.directory().get(&ask.id).map(|known| known.registration.clone()));
        for _ in 0..LOOKS {
            let holder = match known.take() {
                Some(holder) => holder,
                None => match self.read_holder(ask).await? {
                    Some(holder) => holder,
                    None => return Ok(None),
                },
            };
            if *holder.incarnation() == self.cluster.incarnation {
                return Ok(None);
            }
            match self.ask_node(ask, holder.incarnation()).await? {
                (StatusCode::NOT_FOUND | StatusCode::CONFLICT, _) => {}
                (StatusCode::OK, body) => return Ok(Some(body)),
                // It may not know this node as a living one. That says nothing of the device.
                (status, _) => {
                    let holder = holder.incarnation().node().to_owned();
                    let what = format!("it has device {:?}, and answers the request with {status}", ask.id.as_str());
                    return Err(NodeUnreachable { node: holder, what });
                }
            }
        }
        Ok(None)
    }

    async fn ask_node(
        self: &Arc<Self>,
        ask: &Wanted,
        holder: &Incarnation,
    ) -> Result<(StatusCode, Bytes), NodeUnreachable> {
        let path = format!("{}{}", path_of(&ask.id), ask.below);
        let asked = match self.neighbour(holder).await {
            Ok(neighbour) => self.ask(&neighbour, ask.method.clone(), &path).await,
            Err(error) => Err(error),
        };
        let unreachable = |error: &dyn std::fmt::Display| NodeUnreachable {
            node: holder.node().to_owned(),
            what: format!("it has device {:?}, and cannot be asked: {error}", ask.id.as_str()),
        };
        asked.map_err(|error| unreachable(&error))
    }

    /// Reads a holder from the registry itself.
    async fn read_holder(&self, ask: &Wanted) -> Result<Option<Registration>, NodeUnreachable> {
        let commands = self.commands.borrow().clone();
        let read = match commands {
            Some(commands) => self.read_from(&*commands, &ask.id).await,
            None => None,
        };
        read.ok_or_else(|| NodeUnreachable {
            node: self.cluster.incarnation.node().to_owned(),
            what: format!("it does not know device {:?}, and the engine does not answer", ask.id.as_str()),
        })
    }
}
