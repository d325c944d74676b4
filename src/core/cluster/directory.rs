//! The directory: this node's copy of the registry, by which it finds the node of a device.
//!
//! Changes come one by one on the feed. Where one is missing, and on each new connection to the engine, the whole
//! registry is read again in pages, while changes go on. Each entry has the version that made it, and an older one
//! never replaces a newer one, so the order of pages and changes does not matter.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use super::facts::{DeviceFacts, Texts};
use super::history::{History, Place};
use super::names::{Incarnation, Registration};
use super::registry::{Change, Delta, Entry, Version};
use crate::protocol::DeviceId;

/// Version of an entry that no change has confirmed since the last pass began, and no page.
const UNCONFIRMED: u64 = 0;

/// The entry of a device.
#[derive(Debug, Clone)]
pub struct Known {
    /// Registration that holds the id.
    pub registration: Registration,
    /// Facts for lists.
    pub facts: Arc<DeviceFacts>,
    version: u64,
}

/// A copy of the registry.
#[derive(Debug, Default)]
pub struct Directory {
    entries: BTreeMap<DeviceId, Known>,
    /// Texts that the facts of the entries share.
    texts: Texts,
    /// The nodes of the entries, and how many each has. All entries of a node share its name.
    nodes: BTreeMap<Incarnation, usize>,
    /// Number of changes of the entries, those that only confirm one left out.
    revision: u64,
    /// The versions that are known.
    history: History,
    /// Set when a change is missing: the registry has to be read again.
    incomplete: bool,
    scan: Option<Scan>,
}

/// A pass over the whole registry.
#[derive(Debug)]
struct Scan {
    /// Version when the pass began. An older entry that it does not show is gone.
    began: u64,
    seen: HashSet<DeviceId>,
    /// Ids without a holder, with the version that removed it. A page may be older than that.
    released: HashMap<DeviceId, u64>,
}

impl Directory {
    /// Begins again on a new connection, whose feed starts after `version`.
    ///
    /// The entries stay, for they are the best that is known. Each is unconfirmed, since an engine that has lost its
    /// last writes gives their numbers to others.
    pub fn reset(&mut self, version: Version) {
        self.confirm_none();
        self.history.reset(version);
        self.scan = None;
        self.incomplete = true;
    }

    /// Applies a change of the feed. Returns false if it is older than what is known.
    pub fn apply(&mut self, delta: &Delta) -> bool {
        match self.history.on_change(delta.version, delta.after) {
            Place::Known => return false,
            Place::BehindGap => self.incomplete = true,
            Place::Next => {}
        }
        let version = delta.version.number;
        match &delta.change {
            Change::Claimed(entries) => {
                for (id, registration, details) in entries {
                    self.put(id, registration.clone(), details, version);
                }
            }
            Change::Released(ids) => {
                for id in ids {
                    self.take(id, version);
                }
            }
            Change::Joined(_) | Change::Left(_) | Change::Ice | Change::Announced => {}
        }
        true
    }

    /// Notes a version that the engine has named in an answer. `asked` is the [`Directory::greatest_number`] when it was
    /// asked: it names no older one, unless it has lost writes.
    pub fn on_named(&mut self, version: Version, asked: u64) {
        self.history.on_named(version, asked);
    }

    /// Compares with a version whose change has to be known by now. If it is not, changes are missing.
    pub fn check(&mut self, version: Version) {
        // A scan that begins now shows all that stands in that version.
        self.incomplete |= self.history.check(version);
    }

    /// Returns whether the registry has lost a version that is known. Or a change of the feed was not one of the engine.
    pub fn has_lost(&self) -> bool {
        self.history.has_lost()
    }

    /// Returns whether changes were missing since the last call, so that the registry may have lost writes unnoticed.
    pub(super) fn take_unproven(&mut self) -> bool {
        self.history.take_unproven()
    }

    /// Notes that changes were lost on their way here.
    pub fn miss(&mut self) {
        self.incomplete = true;
    }

    /// Returns whether the registry has to be read again, and is not being read yet.
    pub fn needs_scan(&self) -> bool {
        self.incomplete && self.scan.is_none()
    }

    /// Returns whether all that is known is up to date.
    pub fn is_complete(&self) -> bool {
        !self.incomplete && self.scan.is_none()
    }

    /// Begins to read the whole registry.
    ///
    /// All that is known is older than what the pages show, whatever its versions: an engine that has lost writes may have
    /// given them to other changes since.
    pub fn begin_scan(&mut self) {
        self.confirm_none();
        self.incomplete = false;
        self.scan = Some(Scan { began: self.version(), seen: HashSet::new(), released: HashMap::new() });
    }

    /// Applies a page of the registry.
    pub fn page(&mut self, entries: Vec<(DeviceId, Entry)>) {
        for (id, entry) in entries {
            let Some(scan) = &mut self.scan else { return };
            scan.seen.insert(id.clone());
            if scan.released.get(&id).is_none_or(|released| *released < entry.version) {
                self.put(&id, entry.registration, &entry.details, entry.version);
            }
        }
    }

    /// Keeps what is known of ids whose entries in the registry say nothing. Their nodes claim them again.
    pub fn keep(&mut self, ids: Vec<DeviceId>) {
        if let Some(scan) = &mut self.scan {
            scan.seen.extend(ids);
        }
    }

    /// Ends the pass: removes the entries that it has not shown.
    pub fn end_scan(&mut self) {
        let Some(scan) = self.scan.take() else { return };
        let before = self.entries.len();
        self.entries.retain(|id, entry| scan.seen.contains(id) || entry.version > scan.began);
        self.texts.tidy();
        if self.entries.len() != before {
            self.revision += 1;
            self.nodes.clear();
            for entry in self.entries.values() {
                *self.nodes.entry(entry.registration.incarnation().clone()).or_default() += 1;
            }
        }
    }

    /// Finds the entry of a device.
    pub fn get(&self, id: &DeviceId) -> Option<&Known> {
        self.entries.get(id)
    }

    /// Returns all devices, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, &Known)> {
        self.entries.iter()
    }

    /// Returns the registrations of one node, sorted by id.
    pub fn of_node<'a>(&'a self, node: &'a Incarnation) -> impl Iterator<Item = (&'a DeviceId, &'a Registration)> {
        let own = move |(id, entry): (&'a DeviceId, &'a Known)| {
            (entry.registration.incarnation() == node).then_some((id, &entry.registration))
        };
        self.iter().filter_map(own)
    }

    /// Returns up to `most` devices behind `after`, sorted by id. A long list is read in parts, without a long lock.
    pub fn after(&self, after: Option<&DeviceId>, most: usize) -> impl Iterator<Item = (&DeviceId, &Known)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range::<DeviceId, _>((from, Bound::Unbounded)).take(most)
    }

    /// Returns the nodes that have devices, with the number of them.
    pub fn nodes(&self) -> impl Iterator<Item = (&Incarnation, usize)> {
        self.nodes.iter().map(|(node, devices)| (node, *devices))
    }

    /// Returns the number of devices of a node.
    pub fn devices_of(&self, node: &Incarnation) -> usize {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    /// Returns a number that is another one whenever an entry has come, gone or changed.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Returns the number of the version of the registry up to which changes have arrived.
    pub fn version(&self) -> u64 {
        self.history.latest().number
    }

    /// Returns the greatest number of a version that a change or an answer has named. The change may not have arrived.
    pub fn greatest_number(&self) -> u64 {
        self.history.greatest()
    }

    /// Returns the number of devices.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn confirm_none(&mut self) {
        for entry in self.entries.values_mut() {
            entry.version = UNCONFIRMED;
        }
    }

    fn put(&mut self, id: &DeviceId, mut registration: Registration, details: &str, version: u64) {
        if self.entries.get(id).is_some_and(|known| known.version > version) {
            return;
        }
        if let Some((node, _)) = self.nodes.get_key_value(registration.incarnation()) {
            registration.share(node);
        }
        let node = registration.incarnation().clone();
        let facts = DeviceFacts::read(details, &mut self.texts);
        match self.entries.get_mut(id) {
            Some(known) if known.registration == registration && *known.facts == facts => {
                known.version = version;
                return;
            }
            Some(known) => {
                let former = std::mem::replace(known, Known { registration, facts: Arc::new(facts), version });
                self.uncount(former.registration.incarnation());
            }
            None => {
                self.entries.insert(id.clone(), Known { registration, facts: Arc::new(facts), version });
            }
        }
        *self.nodes.entry(node).or_default() += 1;
        self.revision += 1;
    }

    /// Counts an entry of a node that is gone.
    fn uncount(&mut self, node: &Incarnation) {
        if let Some(devices) = self.nodes.get_mut(node) {
            *devices -= 1;
            if *devices == 0 {
                self.nodes.remove(node);
            }
        }
    }

    fn take(&mut self, id: &DeviceId, version: u64) {
        if self.entries.get(id).is_some_and(|known| known.version <= version)
            && let Some(gone) = self.entries.remove(id)
        {
            self.uncount(gone.registration.incarnation());
            self.revision += 1;
        }
        if let Some(scan) = &mut self.scan {
            scan.released.insert(id.clone(), version);
        }
    }
}
