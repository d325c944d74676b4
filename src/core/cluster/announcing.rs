//! The part of the membership that announces devices before they register (docs/protocol.md 5.4.21).
//!
//! The engine keeps an announcement until a registration of the device takes it with its claim. A node knows its own
//! announcements, and makes them again where the engine has lost them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::membership::{Asked, Membership};
use super::names::Incarnation;
use super::output::Output;
use super::registry::{BATCH, Expectation, Expected, Operation, Place};
use super::upkeep::{Outcomes, Pending};
use crate::protocol::DeviceId;

impl Membership {
    /// Announces devices. The outcomes are an [`Output::Announced`] with `number`, which is unique. Without the engine,
    /// the node keeps the announcement alone, and makes it later.
    pub fn announce(&mut self, number: u64, devices: &[Expected], most: usize, now: Instant) {
        self.wake(now);
        (self.announcements.most, self.announcements.any) = (most, true);
        for Expected { id, details } in devices {
            let pending = Pending { number, details: Arc::clone(details), sent: false, confirmed: false };
            self.announcements.pending.insert(id.clone(), pending);
        }
        if !self.is_member() || devices.is_empty() {
            let outcomes = vec![Expectation::Pending; devices.len()];
            return self.output(Output::Announced { number, outcomes });
        }
        let missing = devices.len().div_ceil(BATCH);
        let outcomes = Outcomes { devices: devices.len(), missing, known: Vec::new(), came: BTreeSet::new() };
        self.announcements.asked.insert(number, outcomes);
        for batch in devices.chunks(BATCH) {
            self.expect(batch.to_vec(), Some(number), now);
        }
    }

    /// Takes back announcements whose devices have not registered.
    pub fn cancel(&mut self, ids: &[DeviceId], now: Instant) {
        self.wake(now);
        self.take_back(ids, now);
    }

    fn take_back(&mut self, ids: &[DeviceId], now: Instant) {
        let pending = &mut self.announcements.pending;
        let sent = ids.iter().filter(|id| pending.remove(*id).is_some_and(|pending| pending.sent));
        let sent: Vec<_> = sent.cloned().collect();
        self.cancel_all(&sent, now);
    }

    fn cancel_all(&mut self, ids: &[DeviceId], now: Instant) {
        // Without the engine, all are taken back on the next connection.
        for batch in ids.chunks(BATCH).filter(|_| self.is_member()).map(<[_]>::to_vec).collect::<Vec<_>>() {
            self.send_cancel(batch, now);
        }
    }

    fn send_cancel(&mut self, ids: Vec<DeviceId>, now: Instant) {
        let node = self.node.incarnation.clone();
        self.send(Operation::Cancel { node, ids }, Asked::Other, now);
    }

    /// Returns the announcement of a device by this node.
    pub(super) fn own_place(&self, id: &DeviceId) -> Option<Place> {
        let pending = self.announcements.pending.get(id)?;
        Some(Place { by: self.node.incarnation.clone(), details: Arc::clone(&pending.details) })
    }

    /// Takes back all announcements that the engine has of this node, on a new connection: an engine that has lost its
    /// last writes may have old ones.
    pub(super) fn forget_announcements(&mut self, now: Instant) {
        if self.announcements.any {
            self.send_cancel(Vec::new(), now);
        }
    }

    /// Makes all announcements again.
    pub(super) fn announce_all(&mut self, now: Instant) {
        let all = self.announcements.pending.iter();
        let all: Vec<_> = all.map(|(id, pending)| expected(id, &pending.details)).collect();
        for batch in all.chunks(BATCH) {
            self.expect(batch.to_vec(), None, now);
        }
    }

    /// Makes the next announcements again. The registry changes only if it has lost them.
    pub(super) fn announce_some(&mut self, now: Instant) {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = self.announcements.after.as_ref().map_or(Unbounded, Excluded);
        let next = self.announcements.pending.range::<DeviceId, _>((after, Unbounded)).take(BATCH);
        let next: Vec<_> = next.map(|(id, pending)| expected(id, &pending.details)).collect();
        self.announcements.after = next.last().filter(|_| next.len() == BATCH).map(|last| last.id.clone());
        if !next.is_empty() {
            self.expect(next, None, now);
        }
    }

    fn expect(&mut self, expected: Vec<Expected>, number: Option<u64>, now: Instant) {
        let mut ids = Vec::with_capacity(expected.len());
        for Expected { id, .. } in &expected {
            if let Some(pending) = self.announcements.pending.get_mut(id) {
                pending.sent = true;
                ids.push((id.clone(), pending.number));
            }
        }
        let (node, most) = (self.node.incarnation.clone(), self.announcements.most);
        self.send(Operation::Expect { node, expected, most }, Asked::Expect(ids, number), now);
    }

    /// Handles the answer to an announcement.
    pub(super) fn on_expected(
        &mut self,
        ids: Vec<(DeviceId, u64)>,
        number: Option<u64>,
        outcomes: Vec<Expectation>,
        now: Instant,
    ) {
        let mut unknown = Vec::new();
        for ((id, announced), outcome) in ids.into_iter().zip(&outcomes) {
            let Some(pending) = self.announcements.pending.get_mut(&id) else {
                if *outcome == Expectation::Pending {
                    // Repeated, while the first one was refused.
                    unknown.push(id);
                }
                continue;
            };
            if pending.number != announced {
                // It was taken back, and announced anew. The answer to that follows.
                continue;
            }
            match (outcome, number) {
                (Expectation::Pending, _) => pending.confirmed = true,
                (_, Some(_)) => drop(self.announcements.pending.remove(&id)),
                // Made again: the device has registered while this node did not hear of it.
                (Expectation::Registered, None) => self.has_registered(&id),
                // Made again, without success: it counts on this node alone.
                (Expectation::Taken | Expectation::Full, None) => {}
            }
        }
        if !unknown.is_empty() {
            self.send_cancel(unknown, now);
        }
        if let Some(number) = number {
            self.on_outcomes(number, outcomes);
        }
    }

    fn on_outcomes(&mut self, number: u64, outcomes: Vec<Expectation>) {
        let Some(asked) = self.announcements.asked.get_mut(&number) else { return };
        asked.missing -= 1;
        asked.known.extend(outcomes);
        if asked.missing == 0
            && let Some(Outcomes { known, came, .. }) = self.announcements.asked.remove(&number)
        {
            self.tell_outcomes(number, known, &came);
        }
    }

    /// Keeps the announcements without an outcome alone: the engine is lost.
    pub(super) fn lose_announcements(&mut self) {
        for pending in self.announcements.pending.values_mut() {
            pending.confirmed = false;
        }
        for (number, mut asked) in std::mem::take(&mut self.announcements.asked) {
            asked.known.resize(asked.devices, Expectation::Pending);
            self.tell_outcomes(number, asked.known, &asked.came);
        }
    }

    /// Tells a control connection the outcomes, and then which devices have registered meanwhile.
    fn tell_outcomes(&mut self, number: u64, outcomes: Vec<Expectation>, came: &BTreeSet<DeviceId>) {
        self.output(Output::Announced { number, outcomes });
        for id in came {
            if self.announcements.pending.get(id).is_some_and(|pending| pending.number == number) {
                self.has_registered(id);
            }
        }
    }

    /// Notes that registrations hold ids. Those of other nodes are told to the control connection.
    pub(super) fn expected_came<'a>(&mut self, holders: impl Iterator<Item = (&'a DeviceId, &'a Incarnation)>) {
        if self.announcements.pending.is_empty() {
            return;
        }
        for (id, node) in holders {
            // The session of a device of this node tells the control connection, if it does not leave before.
            let is_own = *node == self.node.incarnation;
            if !is_own && self.announcements.pending.get(id).is_some_and(|pending| pending.confirmed) {
                self.has_registered(id);
            }
        }
    }

    /// Ends the announcement of a device that this node admits: its session tells the control connection.
    pub(super) fn admits(&mut self, id: &DeviceId, is_claimed: bool, now: Instant) {
        if is_claimed {
            self.announcements.pending.remove(id);
        } else {
            self.take_back(std::slice::from_ref(id), now);
        }
    }

    fn has_registered(&mut self, id: &DeviceId) {
        let Some(pending) = self.announcements.pending.get(id) else { return };
        if let Some(asked) = self.announcements.asked.get_mut(&pending.number) {
            asked.came.insert(id.clone());
            return;
        }
        self.announcements.pending.remove(id);
        self.output(Output::Registered(id.clone()));
    }
}

fn expected(id: &DeviceId, details: &Arc<str>) -> Expected {
    Expected { id: id.clone(), details: Arc::clone(details) }
}
