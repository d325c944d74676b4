//! Announcements of the world's control connections, and what holds of them.

use std::sync::Arc;

use cuttlefish_signaling::core::cluster::Registration;
use cuttlefish_signaling::core::cluster::registry::{Claimed, Expectation, Expected, Operation, Reply};
use cuttlefish_signaling::protocol::DeviceId;

use crate::node::Announced;
use crate::world::{Grant, World};

/// Announcements of the whole world, at most. There are fewer.
const MOST: usize = 100;

impl World {
    /// Announces a device on a node, unless it is announced or registered there.
    pub(crate) fn announce(&mut self, index: usize, id: DeviceId) {
        let now = self.net.instant();
        let Some(node) = self.nodes[index].as_mut().filter(|node| !node.paused) else { return };
        if node.announced.contains_key(&id) || node.hub.device(&id).is_some() {
            return;
        }
        self.net.tell(|| format!("node {index}: {id} is announced"));
        self.last_announcement += 1;
        node.announced.insert(id.clone(), Announced::Asked(self.last_announcement));
        let details = Arc::from(format!(r#"{{"group":"{}"}}"#, node.incarnation));
        node.membership.announce(self.last_announcement, &[Expected { id, details }], MOST, now);
        self.after(index);
    }

    /// Takes an announcement back: the control connection is closed.
    pub(crate) fn take_back(&mut self, index: usize, id: &DeviceId) {
        let now = self.net.instant();
        let Some(node) = self.nodes[index].as_mut().filter(|node| !node.paused) else { return };
        if node.announced.remove(id).is_some() {
            self.net.tell(|| format!("node {index}: {id} is not announced any more"));
            node.membership.cancel(std::slice::from_ref(id), now);
            self.after(index);
        }
    }

    pub(crate) fn on_announced(&mut self, index: usize, number: u64, outcomes: &[Expectation]) {
        self.net.tell(|| format!("node {index}: announcement {number} {outcomes:?}"));
        let Some(node) = &mut self.nodes[index] else { return };
        let asked = node.announced.iter().find(|(_, state)| **state == Announced::Asked(number));
        let Some(id) = asked.map(|(id, _)| id.clone()) else { return };
        match outcomes {
            [Expectation::Pending] => drop(node.announced.insert(id, Announced::Accepted)),
            _ => drop(node.announced.remove(&id)),
        }
    }

    /// A control connection hears of a device that the engine has given its id since.
    pub(crate) fn on_registered(&mut self, index: usize, id: &DeviceId) {
        self.net.tell(|| format!("node {index}: {id} has registered elsewhere"));
        let story = || format!("node {index} hears that {id} has registered\n{}", self.net.story());
        assert!(self.grants.keys().any(|(granted, _)| granted == id), "{}", story());
        let Some(node) = &mut self.nodes[index] else { return };
        let told = node.announced.remove(id);
        assert_eq!(told, Some(Announced::Accepted), "{}", self.net.story());
    }

    /// A claim takes the announcement that the engine has, which is one of a node.
    pub(crate) fn check_place(&self, index: usize, registration: &Registration, details: &str) {
        assert!(details.contains("node-"), "node {index}: {registration} {details}\n{}", self.net.story());
    }

    /// Notes when ids are granted.
    pub(crate) fn note_grants(&mut self, operation: &Operation, reply: &Reply) {
        let (wanted, replaces) = match (operation, reply) {
            (Operation::Claim { wanted, expected, .. }, Reply::Claimed(Claimed::Granted)) => {
                (std::slice::from_ref(wanted), expected.is_some())
            }
            (Operation::Reclaim { wanted, .. }, _) => (&wanted[..], false),
            _ => return,
        };
        for wanted in wanted {
            let (id, registration) = (wanted.id.clone(), wanted.registration.clone());
            self.grants.insert((id, registration), Grant { at: self.net.now, replaces });
        }
    }

    /// At rest, the engine has what control connections wait for, and nothing else of nodes that are there.
    pub(crate) fn check_announcements(&self) {
        let story = |what: String| format!("{what}\n{}", self.net.story());
        for node in self.nodes.iter().flatten() {
            for (id, state) in &node.announced {
                let holder = self.engine.devices.get(id);
                assert!(holder.is_none(), "{}", story(format!("{} waits for {id}: {holder:?}", node.incarnation)));
                let place = self.engine.places.get(id);
                assert!(place.is_some(), "{}", story(format!("{} waits for {id} alone: {state:?}", node.incarnation)));
            }
        }
        for (id, place) in &self.engine.places {
            let by = self.nodes.iter().flatten().find(|node| node.incarnation == place.by);
            let waits = by.is_none_or(|by| by.announced.contains_key(id));
            assert!(waits, "{}", story(format!("{place:?} of {id} is left")));
        }
    }
}
