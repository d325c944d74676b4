//! The part of the membership that claims ids: it moves claims on, and asks, tells and ends as they say.

use std::sync::Arc;
use std::time::Instant;

use super::claim::{Claim, Next, Outcome, Probe};
use super::membership::{Asked, Membership};
use super::names::Registration;
use super::output::Output;
use super::registry::{BATCH, Claimed, Entry, Operation, Timing, Wanted};
use crate::protocol::DeviceId;

impl Membership {
    /// Claims an id for a session, which `replaces` the holder, if there is one, or yields to it. The outcome is an
    /// [`Output::Tell`].
    pub fn claim(&mut self, wanted: Wanted, replaces: bool, now: Instant) {
        self.wake(now);
        let (id, registration) = (wanted.id.clone(), wanted.registration.clone());
        let mut claim = Claim::new(wanted, replaces, self.patience(now));
        claim.place = self.own_place(&id);
        self.claims.add(claim);
        if self.is_member() {
            self.advance(&id, &registration, now, |claim, _| claim.on_engine());
        } else {
            self.claims.schedule(&id, &registration, true);
            self.claims_on_time(now);
        }
    }

    /// Ends the claim of a session that has left. The id is released, unless another registration holds it.
    pub fn release(&mut self, id: &DeviceId, registration: &Registration, now: Instant) {
        self.wake(now);
        let Some(claim) = self.claims.remove(id, registration) else { return };
        if claim.may_be_held() {
            self.give_up(id, registration, now);
        }
    }

    /// Releases an id. Without the engine, it is released after the next pass over the registry.
    fn give_up(&mut self, id: &DeviceId, registration: &Registration, now: Instant) {
        if self.is_member() {
            self.send_release(vec![(id.clone(), registration.clone())], now);
        }
    }

    /// Handles the answer of a node that [`Output::Probe`] asked.
    pub fn on_probe(
        &mut self,
        id: &DeviceId,
        claimant: &Registration,
        holder: &Registration,
        probe: Probe,
        now: Instant,
    ) {
        self.wake(now);
        self.advance(id, claimant, now, |claim, timing| claim.on_probe(holder, probe, timing, now));
    }

    pub(super) fn send_release(&mut self, ids: Vec<(DeviceId, Registration)>, now: Instant) {
        self.send(Operation::Release(ids), Asked::Other, now);
    }

    /// Reclaims all ids that this node holds.
    pub(super) fn reclaim_all(&mut self, now: Instant) {
        let held: Vec<Wanted> = self.claims.held_after(None).cloned().collect();
        for batch in held.chunks(BATCH) {
            self.reclaim(batch.to_vec(), now);
        }
    }

    pub(super) fn reclaim(&mut self, wanted: Vec<Wanted>, now: Instant) {
        let keys = wanted.iter().map(|wanted| (wanted.id.clone(), wanted.registration.clone())).collect();
        let node = self.node.incarnation.clone();
        self.send(Operation::Reclaim { node, wanted }, Asked::Reclaim(keys), now);
    }

    pub(super) fn on_reclaimed(&mut self, wanted: Vec<(DeviceId, Registration)>, claimed: Vec<Claimed>, now: Instant) {
        for ((id, registration), claimed) in wanted.into_iter().zip(claimed) {
            if let Claimed::Held { holder, .. } = &claimed {
                self.lose(&id, &registration, holder, now);
            } else if let Some(claim) = self.claims.get(&id, &registration) {
                claim.confirm();
            } else {
                // The session has left meanwhile.
                self.give_up(&id, &registration, now);
            }
        }
    }

    /// Handles ids that the registry has released. Changes are not signed: the entry says whether this node holds one.
    pub(super) fn on_released(&mut self, ids: &[DeviceId], now: Instant) {
        for id in ids {
            self.claims.forget_holder(id);
            if self.claims.held(id).is_some() {
                self.read(id, now);
            }
        }
    }

    /// Returns whether a registration of this node has an id, or claims it.
    pub fn has_claim(&self, id: &DeviceId, registration: &Registration) -> bool {
        self.claims.contains(id, registration)
    }

    /// Looks whether this node still holds an id, since another node says that it does not.
    pub fn check(&mut self, id: &DeviceId, now: Instant) {
        self.wake(now);
        if self.is_member() && self.claims.held(id).is_some() {
            self.read(id, now);
        }
    }

    /// Handles the entry of an id that a change names with another holder. Changes are not signed, entries are.
    pub(super) fn on_entry(&mut self, id: &DeviceId, entry: Option<&Entry>, now: Instant) {
        let Some(own) = self.claims.held(id).cloned() else { return };
        match entry {
            Some(entry) if entry.registration != own => self.lose(id, &own, &entry.registration, now),
            Some(_) => {}
            None => {
                let wanted = self.claims.get(id, &own).map(|claim| claim.wanted.clone());
                self.reclaim(wanted.into_iter().collect(), now);
            }
        }
    }

    /// Ends a session whose id has another holder. A registration of this node that has left is none: its record is an old
    /// one, of an engine that has lost writes, or written again by another user of the engine.
    fn lose(&mut self, id: &DeviceId, registration: &Registration, holder: &Registration, now: Instant) {
        let is_own = *holder.incarnation() == self.node.incarnation;
        if is_own && !self.claims.contains(id, holder) {
            self.advance(id, registration, now, |claim, _| claim.take_back(holder.clone()));
        } else {
            self.end(id, registration);
        }
    }

    /// Handles the answer to a claim. `known` is the other holder that the directory named when the engine was asked: its
    /// change comes before its answer.
    pub(super) fn on_claimed(
        &mut self,
        id: &DeviceId,
        registration: &Registration,
        known: Option<Registration>,
        claimed: Claimed,
        now: Instant,
    ) {
        if let Claimed::Expected(place) = &claimed {
            let (registration, details) = (registration.clone(), Arc::clone(&place.details));
            self.output(Output::Place { registration, details });
        }
        let contradicted = known.filter(|holder| self.nodes.is_live(holder.incarnation()));
        self.advance(id, registration, now, |claim, _| claim.on_reply(claimed, contradicted.as_ref(), now));
    }

    /// Returns whether an answer to a claim counts for nothing: an engine that has lost writes has lost renewals too, and
    /// says of holders that the leases of their nodes have ended.
    pub(super) fn is_stale(&self, claimed: &Claimed) -> bool {
        matches!(claimed, Claimed::Held { .. }) && self.directory.has_lost()
    }

    /// Returns the holder that the directory names, if it is another one.
    fn known_holder(&self, id: &DeviceId, registration: &Registration) -> Option<Registration> {
        let holder = &self.directory.get(id)?.registration;
        (holder != registration).then(|| holder.clone())
    }

    /// Asks for all claims that wait for the engine.
    pub(super) fn claims_on_engine(&mut self, now: Instant) {
        for (id, registration) in self.claims.keys() {
            self.advance(&id, &registration, now, |claim, _| claim.on_engine());
        }
    }

    /// Makes all claims that were under way wait for the engine, whose answers no longer count.
    pub(super) fn lose_claims(&mut self, now: Instant) {
        self.in_flight.clear();
        self.lose_announcements();
        self.lose_signing();
        let until = self.waits_until(now);
        for (id, registration) in self.claims.keys() {
            self.claims.lose(&id, &registration, until);
        }
    }

    pub(super) fn claims_on_time(&mut self, now: Instant) {
        while let Some((id, registration)) = self.claims.next_due(now) {
            let (alone, hold) = (!self.is_member(), self.claims.hold_without_engine);
            let known = self.known_holder(&id, &registration);
            self.advance(&id, &registration, now, |claim, _| claim.on_time(alone, known.as_ref(), hold, now));
        }
    }

    /// Gives a claim an event, and does what follows.
    fn advance(
        &mut self,
        id: &DeviceId,
        registration: &Registration,
        now: Instant,
        event: impl FnOnce(&mut Claim, &Timing) -> Next,
    ) {
        let Some(claim) = self.claims.get(id, registration) else { return };
        let next = event(claim, &self.timing);
        let admitted = claim.admitted;
        self.claims.schedule(id, registration, !self.is_member());
        match next {
            Next::Wait => {}
            Next::Ask(expected) => self.ask_for(id, registration, expected, now),
            Next::Probe(holder) => {
                self.output(Output::Probe { id: id.clone(), claimant: registration.clone(), holder });
            }
            Next::Tell(outcome) => self.tell(id, registration, outcome, now),
            Next::Replace(holder) => {
                self.tell(id, registration, Outcome::Granted, now);
                self.output(Output::TellReplaced { id: id.clone(), holder });
            }
            Next::End => self.end(id, registration),
            Next::GiveBack => {
                self.give_up(id, registration, now);
                if admitted {
                    self.end(id, registration);
                } else {
                    self.tell(id, registration, Outcome::Refused, now);
                }
            }
        }
    }

    /// Asks the engine for a claim, and remembers the other holder that is known.
    fn ask_for(&mut self, id: &DeviceId, registration: &Registration, expected: Option<Registration>, now: Instant) {
        let named = self.known_holder(id, registration);
        let Some(claim) = self.claims.get(id, registration) else { return };
        let asked = Asked::Claim(id.clone(), registration.clone(), claim.holders.name(named));
        let (wanted, place) = (claim.wanted.clone(), claim.place.clone());
        self.send(Operation::Claim { wanted, expected, place }, asked, now);
    }

    fn tell(&mut self, id: &DeviceId, registration: &Registration, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Refused | Outcome::Unavailable => drop(self.claims.remove(id, registration)),
            Outcome::Granted | Outcome::Unclaimed => self.admits(id, outcome == Outcome::Granted, now),
        }
        self.output(Output::Tell { registration: registration.clone(), outcome });
    }

    /// Ends a session that has been admitted, whose id another registration holds.
    fn end(&mut self, id: &DeviceId, registration: &Registration) {
        if self.claims.remove(id, registration).is_some() {
            self.output(Output::End { id: id.clone(), registration: registration.clone() });
        }
    }

    /// Returns the time until which a claim waits for the engine before the node decides alone. A new claim does not wait
    /// where the engine has been away for that long, unless it is refused then.
    pub(super) fn patience(&self, now: Instant) -> Instant {
        let until = self.waits_until(now);
        if self.is_member() || self.claims.hold_without_engine {
            return until;
        }
        // A node that starts waits as long for the engine before its first devices come.
        let waits = if self.has_joined() { 1 } else { 2 };
        until.min(now.max(self.away_since + self.timing.patience * waits))
    }

    /// Returns the time until which a claim waits for an engine that is lost now.
    pub(super) fn waits_until(&self, now: Instant) -> Instant {
        now + if self.claims.hold_without_engine { self.timing.outage_hold } else { self.timing.patience }
    }

    pub(super) fn read(&mut self, id: &DeviceId, now: Instant) {
        self.send(Operation::Read(id.clone()), Asked::Read(id.clone()), now);
    }
}
