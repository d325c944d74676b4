//! Looks at the other nodes: whether this one reaches them, and whether they have its settings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;

use super::error::Unreachable;
use super::hello::{ADDRESS_FIX, Hello};
use super::neighbours::Neighbour;
use super::node::Node;
use crate::server::cluster::reach::At;

/// Time as a member after which this node asks others whether they reach it: when they have found out.
const ASKS_AFTER: Duration = Duration::from_secs(15);

/// Time after which it asks again.
const ASKS_AGAIN: Duration = Duration::from_secs(600);

/// Nodes that are asked. Where an address leads nowhere, it does so for most.
const ASKED: usize = 3;

/// Looks at nodes that are new, and at those to which a dial has failed, until the server stops.
pub(super) async fn look(node: Arc<Node>) {
    let mut asks_at = Instant::now() + ASKS_AFTER;
    loop {
        node.shared.timers.sleep(node.timing.renew).await;
        if node.commands.borrow().is_none() {
            asks_at = Instant::now() + ASKS_AFTER;
            continue;
        }
        node.compare_settings();
        node.look_at_due();
        if asks_at <= Instant::now() {
            asks_at = Instant::now() + ASKS_AGAIN;
            node.ask_who_reaches();
        }
    }
}

impl Node {
    /// Takes over the other nodes, and logs which of them have other settings than this one.
    fn compare_settings(&self) {
        let (now, others) = (Instant::now(), self.cluster.living_others());
        let own = self.details();
        let differs = |build: &str, digest: &str| build == own.build && digest != own.digest;
        let at: Vec<_> = others
            .iter()
            .map(|(node, details)| {
                let differs = differs(&details.build, &details.digest);
                At { node, address: &details.address, differs }
            })
            .collect();
        for differing in self.cluster.survey.reach.take_over(&at, &self.timing, now) {
            let name = differing.node();
            if self.log_limit.is_due(("cluster_settings_differ", name), now) {
                let what = "has other limits, ICE servers or waits than this node: give all nodes the same settings";
                tracing::warn!(event = "cluster_settings_differ", node = name, "node {name} {what}");
            }
        }
    }

    fn look_at_due(self: &Arc<Self>) {
        for due in self.cluster.survey.reach.due(Instant::now()) {
            let record = self.cluster.read(|membership| membership.nodes().record(&due).cloned());
            let Some(neighbour) = record.and_then(|record| self.neighbours.of(&record).ok()) else { continue };
            // The dial of a client tells as much.
            if neighbour.control.is_being_made() {
                continue;
            }
            let node = Arc::clone(self);
            self.spawn(async move {
                // The dial is noted.
                let _answer = node.look_at(&neighbour).await;
            });
        }
    }

    /// Asks some other nodes whether they reach this one, and logs that one does not.
    fn ask_who_reaches(self: &Arc<Self>) {
        let mut others = self.cluster.others();
        fastrand::shuffle(&mut others);
        for record in others.into_iter().take(ASKED) {
            let node = Arc::clone(self);
            self.spawn(async move {
                let Ok(neighbour) = node.neighbours.of(&record) else { return };
                let Ok((StatusCode::OK, body)) = node.look_at(&neighbour).await else {
                    return;
                };
                let reaches = serde_json::from_slice::<Hello>(&body).ok().and_then(|hello| hello.reaches);
                let (name, address) = (record.incarnation.node(), &node.fixed.address);
                if reaches == Some(false) && node.log_limit.is_due(("cluster_address", name), Instant::now()) {
                    let what = format!("node {name} does not reach this node at {address}");
                    tracing::warn!(
                        event = "cluster_address",
                        node = name,
                        address,
                        "{what}: open the port, or {ADDRESS_FIX}"
                    );
                }
            });
        }
    }

    /// Notes the outcome of a dial, and logs when it shows that a node cannot be reached, or can be reached again.
    pub(super) fn note_dial(&self, neighbour: &Neighbour, failure: Option<&Unreachable>) {
        let (node, address, now) = (&neighbour.incarnation, &neighbour.address, Instant::now());
        let name = node.node();
        let has_changed = match failure {
            // Without the engine, this node may be the one that is cut off.
            Some(_) if self.commands.borrow().is_none() => false,
            Some(error) => {
                // No later dial has another outcome.
                let is_final = matches!(error, Unreachable::Version(_)) || self.is_own(error);
                let is_new = self.cluster.survey.reach.failed(node, is_final, &self.timing, now);
                if is_new && self.log_limit.is_due(("cluster_unreachable", name, address), now) {
                    self.log_unreachable(neighbour, error);
                }
                is_new
            }
            None => {
                let is_back = self.cluster.survey.reach.worked(node, address);
                if is_back && self.log_limit.is_due(("cluster_reachable", name, address), now) {
                    let what = "can be reached again";
                    tracing::info!(
                        event = "cluster_reachable",
                        node = name,
                        address,
                        "node {name} at {address} {what}"
                    );
                }
                is_back
            }
        };
        if has_changed {
            self.cluster.survey.changed();
            self.shared.changes.mark();
            self.shared.observer.cluster_changed();
        }
    }

    fn log_unreachable(&self, neighbour: &Neighbour, error: &Unreachable) {
        let (name, address) = (neighbour.incarnation.node(), &neighbour.address);
        if self.is_own(error) {
            let what = "this node itself listens at the address of another";
            tracing::warn!(event = "cluster_address", node = name, address, "{what}, {name}: {address}; {ADDRESS_FIX}");
            return;
        }
        let fix = match error {
            // It says what to change.
            Unreachable::Version(_) => String::new(),
            _ => format!("; open its port, or {ADDRESS_FIX}"),
        };
        let what = format!("cannot reach node {name} at {address}: {error}{fix}");
        tracing::warn!(event = "cluster_unreachable", node = name, address, reason = %error, "{what}");
    }

    /// Whether this node was found at the address of another.
    fn is_own(&self, error: &Unreachable) -> bool {
        matches!(error, Unreachable::Other(fingerprint) if *fingerprint == self.fixed.fingerprint)
    }
}
