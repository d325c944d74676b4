//! The part of the membership that looks at the registry now and then, for what no event brings.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::membership::{Asked, InFlight, Membership};
use super::names::Incarnation;
use super::output::Output;
use super::registry::{Answer, BATCH, Entry, Epoch, NodeRecord, Operation, Reply, Timing, Version, Wanted};
use crate::protocol::DeviceId;

impl Membership {
    /// Takes the operation that an answer is to, and notes the version that the answer names. Returns when and for what the
    /// engine was asked, and the reply; `None` if that was before a loss of the connection.
    pub(super) fn take_answer(&mut self, number: u64, answer: Answer) -> Option<(Instant, Asked, Reply)> {
        let InFlight { sent, known, asked } = self.in_flight.remove(&number)?;
        if let Some(version) = answer.version() {
            self.directory.on_named(version, known);
        }
        Some((sent, asked, answer.reply))
    }

    /// Returns for how long the registry could not be asked, if it cannot be asked now.
    pub fn away_for(&self, now: Instant) -> Option<Duration> {
        (!self.is_member()).then(|| now.saturating_duration_since(self.away_since))
    }

    /// Returns whether the registry has had this node since its start.
    pub fn has_joined(&self) -> bool {
        self.epoch.is_some()
    }

    /// Returns the times of the cluster.
    pub fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Returns the record of this node, which the registry need not have.
    pub fn own_record(&self) -> &NodeRecord {
        &self.node
    }

    /// Returns the version of the registry that the last renewal has named.
    pub fn named_version(&self) -> Version {
        self.named
    }

    /// Returns whether an id without an entry has no holder. `renewed` is the answer to a renewal that followed the read
    /// of the entry, and `named` the version that was named before it.
    ///
    /// An engine that has lost devices has no entry of them either, until their nodes have claimed them again.
    pub fn is_absence_certain(&self, named: Version, renewed: &Reply, now: Instant) -> bool {
        let Reply::Renewed { epoch, version, .. } = renewed else { return false };
        let follows = *version == named || version.number > named.number;
        self.epoch == Some(*epoch) && follows && self.upkeep.absence_counts_at <= now
    }

    /// Notes the registry that this node has joined. Returns whether it is its first one.
    pub(super) fn note_registry(&mut self, epoch: Epoch, now: Instant) -> bool {
        if self.epoch.is_some() && self.has_lost(epoch) {
            self.doubt_absence(now);
        }
        self.epoch.is_none()
    }

    /// Returns whether the engine has another registry than the one that has this node, or has lost writes of it.
    pub(super) fn has_lost(&self, epoch: Epoch) -> bool {
        self.epoch != Some(epoch) || self.directory.has_lost()
    }

    /// Notes that the registry may have lost devices. A node that does not claim them again in the time of a lease is gone.
    pub(super) fn doubt_absence(&mut self, now: Instant) {
        self.upkeep.absence_counts_at = now + self.timing.lease;
    }

    /// Looks whether the registry says of this node what is so, and whether the devices of a dead node are left.
    pub(super) fn do_upkeep(&mut self, now: Instant) {
        if self.upkeep.next > now {
            return;
        }
        self.upkeep.next = now + self.timing.upkeep;
        if self.directory.take_unproven() {
            self.write_again(now);
        }
        self.reclaim_some(now);
        self.announce_some(now);
        if self.directory.is_complete() {
            self.release_strays(now);
            self.look_for_dead(now);
        }
    }

    /// Reclaims the next ids that this node holds. The registry changes only if it has lost them.
    fn reclaim_some(&mut self, now: Instant) {
        let next = self.claims.held_after(self.upkeep.after.as_ref()).take(BATCH);
        let wanted: Vec<Wanted> = next.cloned().collect();
        self.upkeep.after = wanted.last().filter(|_| wanted.len() == BATCH).map(|last| last.id.clone());
        if !wanted.is_empty() {
            self.reclaim(wanted, now);
        }
    }

    /// Writes again what the registry is to have of this node: changes were missing, so it may have lost some unnoticed.
    /// Ids follow as in each upkeep, since a node that misses changes of a busy engine must not ask it for all at once.
    fn write_again(&mut self, now: Instant) {
        self.send_record(now);
        self.forget_announcements(now);
        self.announce_all(now);
    }

    /// Releases ids that the registry says this node has, and that no session of it claims.
    fn release_strays(&mut self, now: Instant) {
        let own = self.directory.of_node(&self.node.incarnation);
        let strays = own.filter(|(id, registration)| !self.claims.contains(id, registration)).take(BATCH);
        let strays: Vec<_> = strays.map(|(id, registration)| (id.clone(), registration.clone())).collect();
        if !strays.is_empty() {
            self.send_release(strays, now);
        }
    }

    /// Asks nodes whose lease ended long ago whether they are there, before their devices are removed.
    fn look_for_dead(&mut self, now: Instant) {
        let with_devices: BTreeSet<_> = self.directory.nodes().map(|(node, _)| node.clone()).collect();
        self.nodes.retain(&with_devices);
        let dead: BTreeSet<_> = with_devices.into_iter().filter(|node| !self.nodes.is_live(node)).collect();
        self.upkeep.dead.retain(|node, _| dead.contains(node));
        for node in dead {
            let since = *self.upkeep.dead.entry(node.clone()).or_insert(now);
            if since + self.timing.reap > now {
                continue;
            }
            match self.nodes.record(&node).cloned() {
                Some(record) => self.output(Output::Hello(record)),
                None => self.reap(&node, now),
            }
        }
    }

    pub(super) fn reap(&mut self, node: &Incarnation, now: Instant) {
        if self.is_member() && self.upkeep.dead.contains_key(node) {
            self.send(Operation::Reap(node.clone()), Asked::Reap(node.clone()), now);
        }
    }

    pub(super) fn on_reaped(&mut self, node: &Incarnation, more: bool, now: Instant) {
        if more {
            self.reap(node, now);
        }
    }

    /// Renews the lease of this node.
    pub(super) fn renew(&mut self, now: Instant) {
        self.send(Operation::Renew(self.node.incarnation.clone()), Asked::Renew, now);
    }

    /// Reads the records of all nodes with a lease, unless they are being read.
    pub(super) fn read_nodes(&mut self, now: Instant) {
        if !self.is_asking(|asked| matches!(asked, Asked::Nodes)) {
            self.send(Operation::Nodes, Asked::Nodes, now);
        }
    }

    /// Handles that the registry has another incarnation with the name of this node.
    pub(super) fn on_name_held(&mut self, node: NodeRecord, lease: Duration, now: Instant) {
        if lease.is_zero() {
            self.join(Some(node.incarnation), now);
        } else {
            self.output(Output::Hello(node));
        }
    }

    /// Replaces the facts of this node for others.
    pub fn set_details(&mut self, details: Arc<str>, now: Instant) {
        self.wake(now);
        self.node.details = details;
        // A join that is under way names those of before: the record is corrected after it.
        if self.is_member() {
            self.send_record(now);
        }
    }

    /// Puts the record of this node into the registry again if the registry has, or is about to get, other facts.
    pub(super) fn correct_record(&mut self, named: &Arc<str>, now: Instant) {
        if *named != self.node.details {
            self.send_record(now);
        }
    }

    pub(super) fn send_record(&mut self, now: Instant) {
        let join = Operation::Join { node: self.node.clone(), replaces: None };
        self.send(join, Asked::Other, now);
    }

    /// Takes over the records of nodes with a lease, as the engine has answered [`Operation::Nodes`].
    pub fn on_nodes(&mut self, records: &[NodeRecord]) {
        for record in records {
            self.nodes.joined(record);
        }
    }

    /// Reads the whole registry, since any change may be missing.
    pub(super) fn read_registry(&mut self, now: Instant) {
        self.directory.begin_scan();
        self.read_nodes(now);
        self.look_for_ice(now);
        self.send(Operation::Scan(0), Asked::Page, now);
    }

    /// Takes over a page of the registry.
    pub(super) fn on_page(
        &mut self,
        cursor: u64,
        entries: Vec<(DeviceId, Entry)>,
        unsigned: Vec<DeviceId>,
        now: Instant,
    ) {
        self.expected_came(entries.iter().map(|(id, entry)| (id, entry.registration.incarnation())));
        let appeared = entries.iter().map(|(id, _)| id.clone()).collect();
        self.directory.page(entries);
        for id in unsigned.iter().filter(|id| self.claims.held(id).is_some()).cloned().collect::<Vec<_>>() {
            // The answer has no entry either: the id is claimed again.
            self.read(&id, now);
        }
        self.directory.keep(unsigned);
        self.output(Output::Appeared(appeared));
        if cursor == 0 {
            self.directory.end_scan();
        } else {
            self.send(Operation::Scan(cursor), Asked::Page, now);
        }
    }
}
