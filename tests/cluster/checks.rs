//! The invariants of each world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cuttlefish_signaling::core::cluster::Registration;
use cuttlefish_signaling::core::cluster::claim::Outcome;
use cuttlefish_signaling::hub::Hub;
use cuttlefish_signaling::protocol::DeviceId;
use cuttlefish_signaling::relay::Relay;

use crate::net::Party;
use crate::node::{Node, SessionState};
use crate::peers::{Client, Device};
use crate::world::World;

/// Time in which an answer of another node may come.
const RECENTLY: Duration = Duration::from_secs(4);

/// Time that a message of a node may be on its way to its client.
const ON_ITS_WAY: Duration = Duration::from_millis(100);

/// Time for which the lease of a node goes on that was killed.
const LEASE: Duration = Duration::from_secs(6);

/// Time for which a node that did not answer is not asked again. If its lease ends meanwhile, or an engine that is rolled back
/// has its lease of before, its device may lose its id.
const ASKED_BEFORE: Duration = Duration::from_secs(1);

/// Time from the question of a node to the engine until its client is told, at most: it may be stopped meanwhile.
const LOOKING: Duration = Duration::from_secs(8);

impl World {
    /// Returns the device of a link.
    fn device_of(&self, link: usize) -> usize {
        match self.net.links[link].halves[0].party {
            Party::Device(device) => device,
            other => panic!("{other:?} has registered"),
        }
    }

    /// Returns whether a device is there, and others have no reason to take it for gone.
    fn is_safe(&self, device: usize) -> bool {
        self.is_alive(device) && !self.devices[device].disturbed
    }

    /// No device that is alive and reachable loses its id to a newcomer, nor does another hold it beside it. A newcomer
    /// is refused only where another device has the id.
    pub(crate) fn check_outcome(&mut self, index: usize, registration: &Registration, outcome: Outcome) {
        let Some(process) = &self.nodes[index] else { return };
        let Some(session) = process.sessions.get(registration) else { return };
        let (id, device) = (session.device.id.clone(), self.device_of(session.link));
        if outcome == Outcome::Unclaimed {
            // Until it is granted, another may hold the id.
            self.devices[device].disturbed = true;
        }
        let others = self.nodes.iter().flatten().flat_map(|node| node.sessions.iter());
        let others: Vec<_> =
            others.filter(|(other, session)| *other != registration && session.device.id == id).collect();
        if outcome == Outcome::Granted && !self.settings.replaces && !self.has_lost_grant(&id, registration) {
            for (other, holder) in &others {
                let its_device = self.device_of(holder.link);
                // The engine may have forgotten a holder, but the directory has not.
                let known = session.known.as_ref() == Some(*other) && self.is_asked(index, other, its_device);
                // The nodes reclaim their devices as soon as there is a new registry.
                let runs = self.nodes[self.devices[its_device].node].as_ref().is_some_and(|process| !process.paused);
                let is_new = self.engine.devices.get(&id).is_some_and(|entry| entry.registration == *registration);
                let took_free =
                    self.grants.get(&(id.clone(), registration.clone())).is_some_and(|grant| !grant.replaces);
                let settling = self.engine.is_settling(self.net.now) && is_new && took_free;
                let early = settling && runs && self.is_alive(its_device);
                let kept = known || early || self.is_safe(its_device);
                let beside = holder.state == SessionState::Granted && kept;
                assert!(!beside, "{other} has {id} when {registration} gets it\n{}", self.net.story());
            }
        }
        if outcome == Outcome::Refused && !self.devices[device].disturbed {
            // The holder may have left since it was asked. One that is half-open does not know when, and one whose session
            // has just ended has not heard it.
            let was_there = |(place, it): (usize, &Device)| {
                let recently = it.over.map_or(it.registered, |at| at + RECENTLY > self.net.now);
                it.id == id && (recently || self.net.half_open[place])
            };
            // Its node may have been killed, whose lease goes on.
            let orphaned = self.orphaned_at.get(&id).is_some_and(|at| *at + LEASE > self.net.now);
            let kept = orphaned || self.is_unreleased(&id);
            let free = others.is_empty() && !kept && !self.devices.iter().enumerate().any(was_there);
            assert!(!free, "{registration} is refused {id}, which no other has\n{}", self.net.story());
        }
    }

    /// Returns whether the registry has an id for a node that cannot release it, since it is without the engine.
    fn is_unreleased(&self, id: &DeviceId) -> bool {
        let Some(holder) = self.engine.devices.get(id).map(|entry| entry.registration.incarnation()) else {
            return false;
        };
        let mut processes = self.nodes.iter().flatten();
        processes.any(|process| process.incarnation == *holder && !process.membership.is_member())
    }

    /// Returns whether the engine has lost the grant that a node hears of now. The node was stopped meanwhile, and is about to
    /// hear of the loss.
    fn has_lost_grant(&self, id: &DeviceId, registration: &Registration) -> bool {
        let grant = self.grants.get(&(id.clone(), registration.clone()));
        let lost_at = self.rolled_back_at.max(self.emptied_at);
        let has_it = self.engine.devices.get(id).is_some_and(|entry| entry.registration == *registration);
        !has_it && grant.is_some_and(|grant| lost_at.is_some_and(|lost_at| grant.at < lost_at))
    }

    /// Returns whether a node counts the node of a holder as there, and the holder answers it.
    fn is_asked(&self, by: usize, holder: &Registration, device: usize) -> bool {
        let of = self.devices[device].node;
        let live = |process: &Node| process.membership.nodes().is_live(holder.incarnation());
        let unmet_at = self.unmet_at[by].max(self.unmet_at[of]);
        let reached = !self.net.has_cut(by, of) && unmet_at + RECENTLY + ASKED_BEFORE < self.net.now;
        let runs = self.nodes[of].as_ref().is_some_and(|process| !process.paused);
        self.is_alive(device) && reached && runs && self.nodes[by].as_ref().is_some_and(live)
    }

    pub(crate) fn check_end(&self, index: usize, registration: &Registration) {
        let Some(session) = self.nodes[index].as_ref().and_then(|process| process.sessions.get(registration)) else {
            return;
        };
        let kept = self.is_safe(self.device_of(session.link)) && !self.settings.replaces;
        assert!(!kept, "{registration} ends although it is alive and reachable\n{}", self.net.story());
    }

    /// No client is told that its device has left, or is not there, while it is.
    pub(crate) fn check_client_end(&self, index: usize, code: u16, reason: &str) {
        let Client { id, node, device, since, looked_up_at, link, .. } = &self.clients[index];
        let story = || format!("client {index} is told {code} {reason}\n{}", self.net.story());
        let met_since = |other: usize, since: Duration| {
            !self.net.has_cut(*node, other) && self.unmet_at[*node].max(self.unmet_at[other]) < since
        };
        if let Some(device) = device {
            // A message that its node had sent may arrive after the node was killed, and one that waited for a node that was
            // paused arrives after its end.
            let sent = since.saturating_sub(ON_ITS_WAY);
            let runs = self.nodes[*node].as_ref().is_some_and(|process| process.party == self.net.other(*link, 0));
            let reached = met_since(self.devices[*device].node, sent) && self.disturbed_at[*node] < *since && runs;
            let stays = self.is_safe(*device) && self.devices[*device].registered && reached;
            assert!(!stays || self.settings.replaces, "the device has not left: {}", story());
        } else if reason.contains("not found") {
            // That is not said without a word of the engine, whatever the directory knows. The answer of a slow engine
            // tells how it was when the engine looked.
            let read_at = looked_up_at.unwrap_or_else(|| panic!("the engine was not asked: {}", story()));
            let long_ago = self.net.now.saturating_sub(Duration::from_secs(10));
            let there = self.devices.iter().enumerate().any(|(place, device)| {
                let registered = device.since.is_some_and(|since| since < read_at);
                device.id == *id && self.is_safe(place) && registered && met_since(device.node, long_ago)
            });
            assert!(!there, "the device is registered: {}", story());
            let lost = self.is_lost_by_engine(*node, id, read_at);
            assert!(!lost, "the engine has lost the device, which its node has: {}", story());
        }
    }

    /// Returns whether the engine was emptied while a node was its member, and may not have had a device again that is there
    /// when it was read.
    fn is_lost_by_engine(&self, node: usize, id: &DeviceId, read_at: Duration) -> bool {
        let emptied_at = self.emptied_at.filter(|at| *at < read_at && self.net.now < *at + LEASE);
        let Some(emptied_at) = emptied_at else { return false };
        let was_member = self.joined_at[node].is_some_and(|at| at < emptied_at);
        let is_there = |(place, device): (usize, &Device)| {
            let before = device.since.is_some_and(|since| since + LOOKING < emptied_at);
            let runs = self.nodes[device.node].as_ref().is_some_and(|process| !process.paused);
            device.id == *id && before && self.is_alive(place) && runs && self.was_lost(device)
        };
        was_member && self.devices.iter().enumerate().any(is_there)
    }

    /// Returns whether an engine that was emptied had a device. Its node may only have admitted it, and another may have taken
    /// its id before.
    fn was_lost(&self, device: &Device) -> bool {
        let lost = self.lost.get(&device.id);
        let session = lost.and_then(|lost| self.nodes[device.node].as_ref()?.sessions.get(lost));
        session.is_some_and(|session| session.link == device.link && session.state == SessionState::Granted)
    }

    /// The books of a node that is at rest, or gone, balance.
    pub(crate) fn check_ledger(&self, node: usize, relay: &Arc<Relay>) {
        let books = relay.ledger().read();
        assert!(books.balances(), "the ledger of node {node} does not balance: {books:?}\n{}", self.net.story());
    }

    /// Returns whether a peer is about to hear that its connection has ended.
    pub(crate) fn has_close_under_way(&self) -> bool {
        let devices = self.devices.iter().filter(|device| device.over.is_none()).map(|device| device.link);
        let clients = self.clients.iter().filter(|client| !client.over).map(|client| client.link);
        devices.chain(clients).any(|link| self.net.is_closed(link, 1))
    }

    /// After all faults are over, and some time has passed.
    pub(crate) fn check_at_rest(&self) {
        self.check_announcements();
        let registry: BTreeMap<_, _> =
            self.engine.devices.iter().map(|(id, entry)| (id.clone(), entry.registration.clone())).collect();
        let mut union = BTreeMap::new();
        for (index, node) in self.nodes.iter().flatten().enumerate() {
            self.check_sessions(node);
            self.check_records(node);
            for (registration, session) in &node.sessions {
                let other = union.insert(session.device.id.clone(), registration.clone());
                assert!(other.is_none(), "{other:?} and {registration} have one id: {}", self.net.story());
            }
            let known = node.membership.directory().iter();
            let known: BTreeMap<_, _> = known.map(|(id, entry)| (id.clone(), entry.registration.clone())).collect();
            assert!(node.membership.is_member(), "{} is no member: {}", node.incarnation, self.net.story());
            assert_eq!(known, registry, "the directory of {}: {}", node.incarnation, self.net.story());
            self.check_ledger(index, &node.relay);
        }
        assert_eq!(union, registry, "the sessions: {}", self.net.story());
        self.check_clients(&union);
        self.check_books();
    }

    /// A node knows the facts of each node as they are.
    fn check_records(&self, node: &Node) {
        for other in self.nodes.iter().flatten() {
            let record = node.membership.nodes().record(&other.incarnation);
            let own = Some(other.membership.own_record());
            assert_eq!(record, own, "the record that {} has: {}", node.incarnation, self.net.story());
        }
    }

    /// The hub of a node has the devices that it has claimed.
    fn check_sessions(&self, node: &Node) {
        let story = || self.net.story();
        for (registration, session) in &node.sessions {
            assert_eq!(session.state, SessionState::Granted, "{registration} of {}: {}", session.device.id, story());
            let in_hub = node.hub.device(&session.device.id);
            let same = in_hub.is_some_and(|device| Arc::ptr_eq(&device, &session.device));
            assert!(same, "{registration} is not in the hub: {}", story());
        }
        node.sessions.values().for_each(|session| self.check_taken(self.device_of(session.link), &node.hub));
        assert_eq!(node.hub.device_count(), node.sessions.len(), "devices of {}: {}", node.incarnation, story());
    }

    /// All payloads that nodes have taken for clients that are still there have arrived.
    fn check_taken(&self, device: usize, hub: &Hub) {
        let clients = hub.device(&self.devices[device].id).map(|device| device.clients()).unwrap_or_default();
        for number in clients.iter().map(|client| u64::from(client.id.get())) {
            let Some(taken) = self.net.taken.get(&(device as u64, number)) else { continue };
            let last = (taken.first + taken.count - 1, number);
            let has_it = |client: &Client| client.device == Some(device) && client.received == Some(last);
            let arrived = self.clients.iter().any(has_it);
            assert!(arrived, "of device {device}, {taken:?} to client {number} is lost: {}", self.net.story());
        }
    }

    /// Each client has its device if it is there, and no session is left without its client.
    fn check_clients(&self, holders: &BTreeMap<cuttlefish_signaling::protocol::DeviceId, Registration>) {
        let story = || self.net.story();
        let (mut connected, mut proxied, mut here) = (0, 0, 0);
        for (index, client) in self.clients.iter().enumerate().filter(|(_, client)| !client.over) {
            here += 1;
            let holder = holders.get(&client.id).map(|registration| {
                let session = |node: &Node| node.sessions.get(registration).map(|session| session.link);
                self.device_of(self.nodes.iter().flatten().find_map(session).unwrap())
            });
            assert_eq!(client.device, holder, "the device of client {index}: {}", story());
            let Some(device) = holder else { continue };
            connected += 1;
            proxied += usize::from(self.devices[device].node != client.node);
            self.check_talk(index, device);
        }
        let attached: usize = self.nodes.iter().flatten().map(|node| node.hub.client_count()).sum();
        assert_eq!(attached, connected, "sessions with a device: {}", story());
        let devices = self.devices.iter().filter(|device| device.over.is_none()).count();
        let connections: usize = self.nodes.iter().flatten().map(|node| node.connections.len()).sum();
        let open = |node: &Node| node.connections.keys().copied().collect::<Vec<_>>();
        let open: Vec<_> = self.nodes.iter().flatten().map(open).collect();
        assert_eq!(connections, devices + here + 2 * proxied, "connections {open:?}: {}", story());
    }

    /// All payloads of a pair that is still connected have arrived.
    fn check_talk(&self, client: usize, device: usize) {
        let sent = self.clients[client].sent;
        let talk = self.devices[device].talks.values().find(|talk| talk.client == Some(client));
        let story = || format!("of client {client} and device {device}: {}", self.net.story());
        assert_eq!(talk.map_or(0, |talk| talk.received), sent, "payloads {}", story());
        if let Some(talk) = talk.filter(|talk| talk.sent > talk.unsure) {
            let last = self.clients[client].received.map(|(at, _)| at + 1);
            assert_eq!(last, Some(talk.sent), "answers {}", story());
        }
    }

    /// All that the nodes have counted as delivered has arrived, or was lost when a connection broke.
    fn check_books(&self) {
        let carried = self.net.carried;
        let living = self.nodes.iter().flatten().map(|node| node.relay.ledger().read().delivered);
        assert_eq!(living.sum::<u64>() + self.delivered_before, carried.sent, "{carried:?}: {}", self.net.story());
        assert_eq!(carried.sent, carried.arrived + carried.lost, "{carried:?}: {}", self.net.story());
    }
}
