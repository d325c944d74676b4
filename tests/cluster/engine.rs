//! A model of the engine: the registry, and what each operation does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use cuttlefish_signaling::core::cluster::registry::{
    Answer, BATCH, Change, Claimed, Delta, Entry, Epoch, Expectation, Expected, NodeRecord, Operation, Place, Reply,
    Timing, Version, Wanted,
};
use cuttlefish_signaling::core::cluster::{Incarnation, Registration};
use cuttlefish_signaling::protocol::DeviceId;

/// The registry. Times are those of the engine's own clock.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    timing: Timing,
    epoch: Epoch,
    born: Duration,
    pub(crate) version: Version,
    /// The last stamp of all copies of this engine.
    stamps: Arc<AtomicU64>,
    /// Stamp of the operation that is executed.
    stamp: u64,
    nodes: BTreeMap<Incarnation, Node>,
    pub(crate) devices: BTreeMap<DeviceId, Entry>,
    pub(crate) places: BTreeMap<DeviceId, Place>,
    ice: Option<Arc<str>>,
    changes: Vec<Delta>,
}

#[derive(Debug, Clone)]
struct Node {
    record: NodeRecord,
    lease_end: Duration,
}

impl Engine {
    pub(crate) fn new(timing: Timing, epoch: u64, now: Duration) -> Self {
        let (nodes, devices, places) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let epoch = Epoch(epoch);
        let (version, stamps, changes) = (Version::default(), Arc::default(), Vec::new());
        Self { timing, epoch, born: now, version, stamps, stamp: 0, nodes, devices, places, ice: None, changes }
    }

    /// Returns whether devices that no node has reclaimed cannot be claimed yet.
    pub(crate) fn is_settling(&self, now: Duration) -> bool {
        now < self.born + self.timing.settle
    }

    /// Executes an operation. Returns its answer, and the changes that the feed publishes before it.
    pub(crate) fn execute(&mut self, operation: &Operation, now: Duration) -> (Answer, Vec<Delta>) {
        self.stamp = self.stamps.fetch_add(1, Relaxed) + 1;
        let reply = match operation {
            Operation::Join { node, replaces } => self.join(node, replaces.as_ref(), now),
            Operation::Renew(node) => self.renew(node, now),
            Operation::Claim { wanted, expected, place } => self.claim(wanted, expected.as_ref(), place.as_ref(), now),
            Operation::Reclaim { node, wanted } => self.reclaim(node, wanted, now),
            Operation::Release(ids) => self.release(ids),
            Operation::Read(id) => Reply::Entry(self.devices.get(id).cloned()),
            Operation::Scan(cursor) => self.scan(*cursor),
            Operation::Reap(node) => self.reap(node, now),
            Operation::Nodes => Reply::Nodes(self.live(now).map(|node| node.record.clone()).collect()),
            Operation::Leave(node) => self.leave(node),
            Operation::SetIce { servers, absent } => self.set_ice(servers.clone(), *absent),
            Operation::ReadIce => Reply::Ice(self.ice.clone()),
            // The model has no secret.
            Operation::SealIce => Reply::Done,
            Operation::Expect { node, expected, most } => self.expect(node, expected, *most, now),
            Operation::Cancel { node, ids } => self.cancel(node, ids),
        };
        let named = self.is_named(operation, &reply).then_some(self.version);
        (Answer { reply, named }, std::mem::take(&mut self.changes))
    }

    fn join(&mut self, node: &NodeRecord, replaces: Option<&Incarnation>, now: Duration) -> Reply {
        let earlier = self.nodes.keys().find(|other| other.node() == node.incarnation.node()).cloned();
        if let Some(earlier) = earlier.filter(|earlier| *earlier != node.incarnation) {
            if replaces != Some(&earlier) {
                let Node { record, lease_end } = self.nodes[&earlier].clone();
                return Reply::NameHeld { node: record, lease: lease_end.saturating_sub(now) };
            }
            self.remove_node(&earlier);
        }
        let lease_end = now + self.timing.lease;
        let known = self.nodes.insert(node.incarnation.clone(), Node { record: node.clone(), lease_end });
        if known.is_none_or(|known| known.record != *node) {
            self.change(Change::Joined(node.clone()));
        }
        let nodes = self.live(now).map(|node| node.record.clone()).collect();
        Reply::Joined { epoch: self.epoch, version: self.version, age: now.saturating_sub(self.born), nodes }
    }

    fn renew(&mut self, node: &Incarnation, now: Duration) -> Reply {
        let Some(own) = self.nodes.get_mut(node) else { return Reply::NotAMember };
        own.lease_end = now + self.timing.lease;
        let nodes = self.live(now).map(|node| node.record.incarnation.clone()).collect();
        Reply::Renewed { epoch: self.epoch, version: self.version, nodes }
    }

    fn claim(
        &mut self,
        wanted: &Wanted,
        expected: Option<&Registration>,
        place: Option<&Place>,
        now: Duration,
    ) -> Reply {
        if !self.nodes.contains_key(wanted.registration.incarnation()) {
            return Reply::NotAMember;
        }
        let settled = self.born + self.timing.settle;
        match self.devices.get(&wanted.id).map(|entry| entry.registration.clone()) {
            Some(holder) if holder == wanted.registration => {}
            Some(holder) if Some(&holder) != expected => {
                let lease = self.nodes.get(holder.incarnation()).map(|node| node.lease_end.saturating_sub(now));
                return Reply::Claimed(Claimed::Held { holder, lease: lease.unwrap_or_default() });
            }
            None if now < settled => return Reply::Claimed(Claimed::Settling(settled.saturating_sub(now))),
            _ => {
                let pending = self.places.get(&wanted.id).filter(|pending| !self.is_gone(&pending.by, now));
                if let Some(pending) = pending.filter(|pending| Some(*pending) != place) {
                    return Reply::Claimed(Claimed::Expected(pending.clone()));
                }
                self.hold(std::slice::from_ref(wanted));
            }
        }
        Reply::Claimed(Claimed::Granted)
    }

    fn reclaim(&mut self, node: &Incarnation, wanted: &[Wanted], now: Duration) -> Reply {
        assert!(wanted.len() <= BATCH, "{} devices in one call", wanted.len());
        if !self.nodes.contains_key(node) {
            return Reply::NotAMember;
        }
        let (mut new, mut claimed) = (Vec::new(), Vec::new());
        for device in wanted {
            let holder = self.devices.get(&device.id).map(|entry| entry.registration.clone());
            claimed.push(match holder {
                Some(holder) if holder != device.registration => {
                    let lease = self.nodes.get(holder.incarnation()).map(|node| node.lease_end.saturating_sub(now));
                    Claimed::Held { holder, lease: lease.unwrap_or_default() }
                }
                Some(_) if self.devices[&device.id].details == device.details => Claimed::Granted,
                _ => {
                    new.push(device.clone());
                    Claimed::Granted
                }
            });
        }
        self.hold(&new);
        Reply::Reclaimed(claimed)
    }

    fn release(&mut self, ids: &[(DeviceId, Registration)]) -> Reply {
        let own = |(id, registration): &&(DeviceId, Registration)| {
            self.devices.get(id).is_some_and(|entry| entry.registration == *registration)
        };
        let released: Vec<_> = ids.iter().filter(own).map(|(id, _)| id.clone()).collect();
        self.remove(released);
        Reply::Done
    }

    /// Returns a page of three, in the order of the hashes of ids: what stays is not skipped while others come and go.
    fn scan(&self, cursor: u64) -> Reply {
        let hashed = self.devices.iter().map(|(id, entry)| (hash(id), id.clone(), entry.clone()));
        let mut rest: Vec<_> = hashed.filter(|(hash, ..)| *hash >= cursor).collect();
        rest.sort_by_key(|(hash, ..)| *hash);
        let cursor = rest.get(3).map_or(0, |(hash, ..)| *hash);
        let entries = rest.into_iter().take(3).map(|(_, id, entry)| (id, entry)).collect();
        Reply::Page { epoch: self.epoch, version: self.version, cursor, entries, unsigned: vec![] }
    }

    fn reap(&mut self, node: &Incarnation, now: Duration) -> Reply {
        if self.nodes.get(node).is_some_and(|node| now < node.lease_end + self.timing.reap) {
            return Reply::Reaped { more: false };
        }
        self.remove_some(node)
    }

    fn leave(&mut self, node: &Incarnation) -> Reply {
        if let Some(own) = self.nodes.get_mut(node) {
            own.lease_end = Duration::ZERO;
        }
        self.remove_some(node)
    }

    fn expect(&mut self, node: &Incarnation, expected: &[Expected], most: usize, now: Duration) -> Reply {
        if !self.nodes.contains_key(node) {
            return Reply::NotAMember;
        }
        let mut changed = false;
        let outcomes = expected.iter().map(|expected| self.expect_one(node, expected, most, now, &mut changed));
        let outcomes = outcomes.collect();
        self.note_places(changed);
        Reply::Expected(outcomes)
    }

    fn expect_one(
        &mut self,
        node: &Incarnation,
        expected: &Expected,
        most: usize,
        now: Duration,
        changed: &mut bool,
    ) -> Expectation {
        let by = self.places.get(&expected.id).map(|place| place.by.clone());
        if self.devices.contains_key(&expected.id) {
            if by.as_ref() == Some(node) {
                self.places.remove(&expected.id);
                *changed = true;
            }
            return Expectation::Registered;
        }
        match by {
            Some(by) if by != *node && !self.is_gone(&by, now) => return Expectation::Taken,
            None if self.places.len() >= most && !self.make_room(most, now, changed) => return Expectation::Full,
            _ => {}
        }
        let place = Place { by: node.clone(), details: expected.details.clone() };
        *changed |= self.places.insert(expected.id.clone(), place.clone()) != Some(place);
        Expectation::Pending
    }

    /// Removes announcements of nodes that are gone, of the first in the order of the text `NODE ID`.
    fn make_room(&mut self, most: usize, now: Duration, changed: &mut bool) -> bool {
        let all = self.places.iter().map(|(id, place)| (format!("{} {id}", place.by), id.clone()));
        let first: BTreeSet<_> = all.collect();
        for (_, id) in first.into_iter().take(BATCH) {
            if self.is_gone(&self.places[&id].by, now) {
                self.places.remove(&id);
                *changed = true;
            }
        }
        self.places.len() < most
    }

    fn is_gone(&self, node: &Incarnation, now: Duration) -> bool {
        self.nodes.get(node).is_none_or(|node| now >= node.lease_end + self.timing.reap)
    }

    /// Removes some announcements of a node. Returns whether there may be more.
    fn remove_places(&mut self, node: &Incarnation) -> bool {
        let of_node = self.places.iter().filter(|(_, place)| place.by == *node);
        let ids: Vec<_> = of_node.map(|(id, _)| id.clone()).take(BATCH).collect();
        for id in &ids {
            self.places.remove(id);
        }
        self.note_places(!ids.is_empty());
        ids.len() == BATCH
    }

    fn cancel(&mut self, node: &Incarnation, ids: &[DeviceId]) -> Reply {
        if ids.is_empty() {
            while self.remove_places(node) {}
        }
        let before = self.places.len();
        self.places.retain(|id, place| place.by != *node || !ids.contains(id));
        self.note_places(self.places.len() != before);
        Reply::Done
    }

    fn note_places(&mut self, changed: bool) {
        if changed {
            self.change(Change::Announced);
        }
    }

    fn set_ice(&mut self, servers: Option<Arc<str>>, absent: bool) -> Reply {
        if self.ice != servers && !(absent && self.ice.is_some()) {
            self.ice = servers;
            self.change(Change::Ice);
        }
        Reply::Done
    }

    fn remove_some(&mut self, node: &Incarnation) -> Reply {
        let held = self.devices.iter().filter(|(_, entry)| entry.registration.incarnation() == node);
        let ids: Vec<_> = held.map(|(id, _)| id.clone()).take(BATCH).collect();
        let more = ids.len() == BATCH;
        self.remove(ids);
        let more = more || self.remove_places(node);
        if !more && self.nodes.remove(node).is_some() {
            self.change(Change::Left(node.clone()));
        }
        Reply::Reaped { more }
    }

    fn remove_node(&mut self, node: &Incarnation) {
        let held = self.devices.iter().filter(|(_, entry)| entry.registration.incarnation() == node);
        let ids: Vec<_> = held.map(|(id, _)| id.clone()).collect();
        for batch in ids.chunks(BATCH) {
            self.remove(batch.to_vec());
        }
        while self.remove_places(node) {}
        if self.nodes.remove(node).is_some() {
            self.change(Change::Left(node.clone()));
        }
    }

    /// Returns whether an answer has the version of the registry beside the reply.
    fn is_named(&self, operation: &Operation, reply: &Reply) -> bool {
        use Reply::{Claimed, Done, Expected, Reaped, Reclaimed};
        match operation {
            // They are read first, and written only if there are any.
            Operation::SealIce => self.ice.is_some(),
            _ => matches!(reply, Claimed(_) | Reclaimed(_) | Expected(_) | Done | Reaped { .. }),
        }
    }

    fn live(&self, now: Duration) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| node.lease_end > now)
    }

    fn hold(&mut self, wanted: &[Wanted]) {
        if wanted.is_empty() {
            return;
        }
        let version = self.version.number + 1;
        for Wanted { id, registration, details } in wanted {
            let entry = Entry { registration: registration.clone(), details: details.clone(), version };
            self.devices.insert(id.clone(), entry);
            self.places.remove(id);
        }
        let entry = |wanted: &Wanted| (wanted.id.clone(), wanted.registration.clone(), wanted.details.clone());
        self.change(Change::Claimed(wanted.iter().map(entry).collect()));
    }

    fn remove(&mut self, ids: Vec<DeviceId>) {
        if ids.is_empty() {
            return;
        }
        for id in &ids {
            self.devices.remove(id);
        }
        self.change(Change::Released(ids));
    }

    fn change(&mut self, change: Change) {
        let after = self.version.stamp;
        self.version = Version { number: self.version.number + 1, stamp: self.stamp };
        self.changes.push(Delta { version: self.version, after, change });
    }
}

/// FNV-1a of an id, never 0.
fn hash(id: &DeviceId) -> u64 {
    let bytes = id.as_str().bytes();
    bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)).max(1)
}
