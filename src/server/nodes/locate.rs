//! Answers the question of a session: which other node has a device.

use std::sync::Arc;
use std::time::Duration;

use super::error::Unreachable;
use super::node::Node;
use super::upstream::{Opened, Search};
use crate::core::cluster::Registration;
use crate::core::cluster::registry::{Operation, Reply};
use crate::core::peer::Role;
use crate::core::session::Answer;
use crate::server::cluster::handle::{Locate, unavailable};

/// Looks for one client, at most. A device that changes its node at each look would have it go on forever.
const LOOKS: usize = 3;

/// Time that a client without a wait gives the engine to come back.
const PATIENCE: Duration = Duration::from_secs(5);

/// Pause until the clients of a node that cannot be reached look again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Finds the node of a device, and connects the client to it.
pub(super) async fn answer(node: &Arc<Node>, question: Locate) {
    let Locate { id, last, peer, outbox, known, mut answer } = question;
    let found = {
        let search = Search { node, id: &id, last, peer: &peer, outbox: &outbox };
        tokio::select! {
            biased;
            // The client has left.
            () = answer.closed() => return,
            found = search.run(known) => found,
        }
    };
    // A client that has left meanwhile drops the answer, and with it a connection.
    let _left = answer.send(found);
}

impl Search<'_> {
    async fn run(&self, mut known: Option<Registration>) -> Answer {
        let mut unreachable = false;
        for _ in 0..LOOKS {
            let holder = match known.take() {
                Some(holder) => holder,
                None if !self.last => return Answer::Nowhere,
                None => match self.read().await {
                    Some(Some(holder)) if *holder.incarnation() != self.node.cluster.incarnation => holder,
                    Some(_) => return Answer::Nowhere,
                    None => return unavailable(Role::Client),
                },
            };
            match self.open(&holder).await {
                Ok(Opened::Answer(answer)) => return answer,
                // It has left that node, or has another one now.
                Ok(Opened::NotHere) => unreachable = false,
                Err(error) => {
                    unreachable = true;
                    self.log(&holder, &error);
                    if !self.last {
                        self.look_again();
                        return Answer::Nowhere;
                    }
                }
            }
        }
        if unreachable { unavailable(Role::Client) } else { Answer::Nowhere }
    }

    /// Reads the holder from the registry itself. `None` if the engine cannot be asked.
    async fn read(&self) -> Option<Option<Registration>> {
        let timers = &self.node.shared.timers;
        let mut engine = self.node.commands.subscribe();
        let commands = timers.timeout(PATIENCE, engine.wait_for(Option::is_some)).await?.ok()?.clone()?;
        let read = commands.execute(Operation::Read(self.id.clone()));
        match timers.timeout(self.node.timing.operation, read).await {
            Some(Ok(Reply::Entry(entry))) => Some(entry.map(|entry| entry.registration)),
            _ => None,
        }
    }

    /// Wakes the clients that wait for the device after a pause, once for all of them.
    fn look_again(&self) {
        let (node, id) = (Arc::clone(self.node), self.id.clone());
        if !node.looks.lock().insert(id.clone()) {
            return;
        }
        self.node.spawn(async move {
            node.shared.timers.sleep(LOOK_AGAIN).await;
            node.looks.lock().remove(&id);
            node.shared.hub.wake_waiting(&id);
        });
    }

    fn log(&self, holder: &Registration, error: &Unreachable) {
        let (node, id) = (holder.incarnation().node(), self.id.as_str());
        tracing::debug!(
            event = "cluster_search_failed",
            node,
            device_id = id,
            reason = %error,
            "cannot reach node {node}, which has device {id:?}: {error}"
        );
    }
}
