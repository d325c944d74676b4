//! The claims of this node's registrations, by id and by the time at which they are due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Instant;

use super::claim::Claim;
use super::names::Registration;
use super::registry::Wanted;
use crate::protocol::DeviceId;

/// The claims of one node, by id. A newcomer and the holder of an id may be on the same node.
#[derive(Debug)]
pub(super) struct Claims {
    by_id: BTreeMap<DeviceId, Vec<Claim>>,
    /// Times at which a claim may be due. One that has changed since is not.
    due: BinaryHeap<Reverse<(Instant, DeviceId, Registration)>>,
    /// Refuses devices that cannot be claimed, instead of admitting them.
    pub(super) hold_without_engine: bool,
}

impl Claims {
    pub(super) fn new(hold_without_engine: bool) -> Self {
        Self { by_id: BTreeMap::new(), due: BinaryHeap::new(), hold_without_engine }
    }

    pub(super) fn timeout(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    /// Returns the registration that holds an id.
    pub(super) fn held(&self, id: &DeviceId) -> Option<&Registration> {
        self.by_id.get(id)?.iter().find(|claim| claim.is_held()).map(|claim| &claim.wanted.registration)
    }

    /// Returns whether there is a claim for this registration.
    pub(super) fn contains(&self, id: &DeviceId, registration: &Registration) -> bool {
        self.by_id.get(id).is_some_and(|claims| claims.iter().any(|claim| claim.wanted.registration == *registration))
    }

    /// Returns the registrations that hold their ids, from this id on.
    pub(super) fn held_after(&self, after: Option<&DeviceId>) -> impl Iterator<Item = &Wanted> {
        use std::ops::Bound::{Excluded, Unbounded};
        let range = (after.map_or(Unbounded, Excluded), Unbounded);
        let claims = self.by_id.range::<DeviceId, _>(range).flat_map(|(_, claims)| claims);
        claims.filter(|claim| claim.is_held()).map(|claim| &claim.wanted)
    }

    /// Makes a claim wait for the engine again.
    pub(super) fn lose(&mut self, id: &DeviceId, registration: &Registration, until: Instant) {
        if let Some(claim) = self.get(id, registration) {
            claim.on_engine_lost(until);
            self.schedule(id, registration, true);
        }
    }

    /// Adds a claim.
    pub(super) fn add(&mut self, claim: Claim) {
        // Nearly all ids have one claim.
        self.by_id.entry(claim.wanted.id.clone()).or_insert_with(|| Vec::with_capacity(1)).push(claim);
    }

    /// Returns the next claim that may be due.
    pub(super) fn next_due(&mut self, now: Instant) -> Option<(DeviceId, Registration)> {
        let Reverse((at, ..)) = self.due.peek()?;
        (*at <= now).then(|| self.due.pop())?.map(|Reverse((_, id, registration))| (id, registration))
    }

    pub(super) fn get(&mut self, id: &DeviceId, registration: &Registration) -> Option<&mut Claim> {
        self.by_id.get_mut(id)?.iter_mut().find(|claim| claim.wanted.registration == *registration)
    }

    pub(super) fn remove(&mut self, id: &DeviceId, registration: &Registration) -> Option<Claim> {
        let claims = self.by_id.get_mut(id)?;
        let place = claims.iter().position(|claim| claim.wanted.registration == *registration)?;
        let claim = claims.remove(place);
        if claims.is_empty() {
            self.by_id.remove(id);
        }
        Some(claim)
    }

    /// Forgets the holder of an id that its claims know.
    pub(super) fn forget_holder(&mut self, id: &DeviceId) {
        self.by_id.get_mut(id).into_iter().flatten().for_each(|claim| claim.holders.forget_known());
    }

    pub(super) fn schedule(&mut self, id: &DeviceId, registration: &Registration, alone: bool) {
        if let Some(at) = self.get(id, registration).and_then(|claim| claim.timeout(alone)) {
            self.due.push(Reverse((at, id.clone(), registration.clone())));
        }
    }

    pub(super) fn keys(&self) -> Vec<(DeviceId, Registration)> {
        let of_id = |(id, claims): (&DeviceId, &Vec<Claim>)| {
            claims.iter().map(|claim| (id.clone(), claim.wanted.registration.clone())).collect::<Vec<_>>()
        };
        self.by_id.iter().flat_map(of_id).collect()
    }
}
