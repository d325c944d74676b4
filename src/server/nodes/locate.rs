//! Answers the question of a session: which other node has a device.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::Unreachable;
use super::node::Node;
use super::upstream::{Opened, Search};
use crate::core::cluster::registry::{Answer as Answered, Operation, Reply};
use crate::core::cluster::{Membership, Registration};
use crate::core::peer::Role;
use crate::core::session::Answer;
use crate::protocol::DeviceId;
use crate::server::cluster::engine::Commands;
use crate::server::cluster::handle::{Locate, unavailable};

/// Looks for one client, at most. A device that changes its node at each look would have it go on forever.
const LOOKS: usize = 3;

/// Time that a client without a wait gives the engine to come back.
const PATIENCE: Duration = Duration::from_secs(5);

impl Node {
    /// Reads the holder of a device from the registry itself. `None` if the engine cannot be asked, or has lost devices and
    /// may not have this one again.
    pub(super) async fn read_from(&self, commands: &dyn Commands, id: &DeviceId) -> Option<Option<Registration>> {
        let read = async {
            let named = self.cluster.read(Membership::named_version);
            let answer = commands.execute(Operation::Read(id.clone())).await;
            let Ok(Answered { reply: Reply::Entry(entry), .. }) = answer else { return None };
            if let Some(entry) = entry {
                return Some(Some(entry.registration));
            }
            let renew = Operation::Renew(self.cluster.incarnation.clone());
            let renewed = commands.execute(renew).await.ok()?;
            let is_certain = |known: &Membership| known.is_absence_certain(named, &renewed.reply, Instant::now());
            self.cluster.read(is_certain).then_some(None)
        };
        self.shared.timers.timeout(self.timing.operation, read).await.flatten()
    }
}

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
        let mut not_there = None;
        for _ in 0..LOOKS {
            let holder = match known.take() {
                Some(holder) => holder,
                None if !self.last => return Answer::Nowhere,
                None => match self.read().await {
                    Some(Some(holder)) if *holder.incarnation() != self.node.cluster.incarnation => holder,
                    // A device of this node that is about to be admitted, unless it has left.
                    Some(Some(holder)) if self.has_claim(&holder) => return unavailable(Role::Client),
                    Some(_) => return Answer::Nowhere,
                    None => return unavailable(Role::Client),
                },
            };
            if not_there.as_ref() == Some(&holder) {
                // It has left, and its node has not told the registry.
                return Answer::Nowhere;
            }
            match self.open(&holder).await {
                Ok(Opened::Answer(answer)) => return answer,
                // It has left that node, or has another one now.
                Ok(Opened::NotHere) => not_there = Some(holder),
                Err(error) => {
                    self.log(&holder, &error);
                    if !self.last {
                        self.look_again();
                        return Answer::Nowhere;
                    }
                }
            }
        }
        // Registered, where it cannot be reached, or on another node at each look.
        unavailable(Role::Client)
    }

    fn has_claim(&self, holder: &Registration) -> bool {
        self.node.cluster.read(|membership| membership.has_claim(self.id, holder))
    }

    /// Reads the holder from the registry itself. `None` if the engine cannot be asked.
    async fn read(&self) -> Option<Option<Registration>> {
        let timers = &self.node.shared.timers;
        let mut engine = self.node.commands.subscribe();
        let commands = timers.timeout(PATIENCE, engine.wait_for(Option::is_some)).await?.ok()?.clone()?;
        self.node.read_from(&*commands, self.id).await
    }

    /// Wakes the clients that wait for the device after a pause, once for all of them.
    fn look_again(&self) {
        let (node, id) = (Arc::clone(self.node), self.id.clone());
        let Some(pause) = node.looks.begin(&id) else { return };
        self.node.spawn(async move {
            node.shared.timers.sleep(pause).await;
            node.looks.end(&id);
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
