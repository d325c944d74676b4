//! Fault injection: rules that drop, delay, duplicate, reorder, truncate, stall or throttle forwards, or close the
//! receiver.
//!
//! This module decides, and keeps the forwards that are held back. It delivers nothing and reads no clock: the relay
//! acts on each [`Verdict`].
//!
//! A forward passes the armed rules in the order in which they were armed. When a rule releases a forward that it held
//! back, the forward continues with the rules after it. The relay calls all of this under one lock, so a rule is armed
//! or not for the whole of a message.

mod copies;
mod rule;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use self::copies::Copies;
pub use self::rule::{Effect, FaultStats, Rule, RuleId};
use crate::protocol::{ClientId, DeviceId, Role, Text, outbound, payload};

/// A forward on its way through the rules. `C` is the data that the relay needs to deliver it.
#[derive(Debug, Clone)]
pub struct Forward<C> {
    /// Role of the receiver.
    pub to: Role,
    /// Device that sends or receives it.
    pub device: DeviceId,
    /// Client that sends or receives it.
    pub client: ClientId,
    /// The message as its receiver gets it.
    pub text: Text,
    /// Whether a rule has held it back: it uses no credit of its sender.
    pub held: bool,
    /// Its copies, if a rule has duplicated it.
    pub copies: Copies,
    /// Data for its delivery.
    pub delivery: C,
}

/// The way in which a fault ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Close frame with this code.
    Close(u16),
    /// TCP RST.
    Reset,
}

/// Action for the relay to take on a forward.
#[derive(Debug)]
pub enum Action<C> {
    /// Deliver it to its receiver.
    Deliver(Forward<C>),
    /// Count it as dropped.
    Lose(Forward<C>),
    /// End the receiver's connection.
    End(Forward<C>, Ending),
}

/// Result of one call: actions for the relay, and the rules that hit. Both may concern forwards that were held back.
#[derive(Debug)]
pub struct Verdict<C> {
    /// Actions, in the order in which the relay has to take them.
    pub actions: Vec<Action<C>>,
    /// Names of the rules that hit, each with the data of the forward that it hit, in their order.
    pub hits: Vec<(C, &'static str)>,
}

/// Armed rules, and the forwards that they hold back.
#[derive(Debug)]
pub struct Faults<C> {
    rules: Vec<Armed<C>>,
    last_id: RuleId,
    seed: u64,
    /// Bounds on held forwards, for all rules together.
    max_held: HeldBounds,
}

/// Bounds on the forwards that faults hold back. Further ones are lost, as on a link whose queue is full: if they were
/// passed on, they would overtake those that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldBounds {
    /// Greatest number of forwards.
    pub messages: usize,
    /// Greatest sum of their lengths, in bytes.
    pub bytes: usize,
}

#[derive(Debug)]
struct Armed<C> {
    id: RuleId,
    rule: Rule,
    stats: FaultStats,
    /// Each rule has its own generator, so that one rule does not change the random choices of another.
    rng: fastrand::Rng,
    held: VecDeque<Held<C>>,
    /// Sum of the lengths of `held`, in bytes.
    held_bytes: usize,
    /// For a stall, its end. For a bandwidth, the time when the link is free. For a delay, the time when the last
    /// forward is due.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Held<C> {
    forward: Forward<C>,
    /// `None`: held until the rule is removed.
    due: Option<Instant>,
}

impl<C: Clone> Faults<C> {
    /// Creates an empty list of rules.
    ///
    /// `seed` seeds all random choices: the same forwards in the same order get the same verdicts. `max_held` limits
    /// the forwards that all rules together hold back.
    pub fn new(seed: u64, max_held: HeldBounds) -> Self {
        Self { rules: Vec::new(), last_id: 0, seed, max_held }
    }

    /// Sets the seed for rules that are armed from now on.
    pub fn set_seed(&mut self, seed: u64) {
        // The generators of rules differ by their numbers, counted from here: the next rule is as on a new server.
        self.seed = seed.wrapping_sub(self.last_id);
    }

    /// Sets the bounds on held forwards.
    pub fn set_max_held(&mut self, max_held: HeldBounds) {
        self.max_held = max_held;
    }

    /// Arms a rule, after those that are armed already.
    pub fn arm(&mut self, rule: Rule) -> RuleId {
        self.last_id += 1;
        let rng = fastrand::Rng::with_seed(self.seed.wrapping_add(self.last_id));
        let stats = FaultStats::default();
        self.rules.push(Armed {
            id: self.last_id,
            rule,
            stats,
            rng,
            held: VecDeque::new(),
            held_bytes: 0,
            until: None,
        });
        self.last_id
    }

    /// Removes a rule and releases the forwards that it holds. `None` if it is not armed.
    pub fn remove(&mut self, id: RuleId, now: Instant) -> Option<(FaultStats, Verdict<C>)> {
        let at = self.rules.iter().position(|armed| armed.id == id)?;
        let mut armed = self.rules.remove(at);
        let mut verdict = Verdict { actions: Vec::new(), hits: Vec::new() };
        for forward in armed.release_all() {
            self.pass(forward, id, now, &mut verdict);
        }
        Some((armed.stats, verdict))
    }

    /// Returns the counters of a rule; `None` if it is not armed.
    pub fn stats(&self, id: RuleId) -> Option<FaultStats> {
        self.rules.iter().find(|armed| armed.id == id).map(|armed| armed.stats)
    }

    /// Returns the rules that are armed, with their counters, in the order in which they apply.
    pub fn list(&self) -> Vec<(RuleId, Rule, FaultStats)> {
        self.rules.iter().map(|armed| (armed.id, armed.rule.clone(), armed.stats)).collect()
    }

    /// Returns whether no rule is armed.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Passes a new forward through all rules.
    pub fn judge(&mut self, forward: Forward<C>, now: Instant) -> Verdict<C> {
        let mut verdict = Verdict { actions: Vec::new(), hits: Vec::new() };
        self.pass(forward, 0, now, &mut verdict);
        verdict
    }

    /// Releases the forwards that are due by `now`.
    pub fn release(&mut self, now: Instant) -> Verdict<C> {
        let mut verdict = Verdict { actions: Vec::new(), hits: Vec::new() };
        for at in 0..self.rules.len() {
            let (id, due) = (self.rules[at].id, self.rules[at].due(now));
            for forward in due {
                self.pass(forward, id, now, &mut verdict);
            }
        }
        verdict
    }

    /// Returns the time of the next [`Faults::release`]; `None` if no forward has a due time.
    pub fn next_due(&self) -> Option<Instant> {
        self.rules.iter().filter_map(|armed| armed.held.front()?.due).min()
    }

    /// Discards all held forwards. Returns those that the ledger counts: of several copies at most one.
    ///
    /// The relay calls it when all connections have ended.
    pub fn abandon(&mut self) -> Vec<Forward<C>> {
        let held = self.rules.iter_mut().flat_map(|armed| armed.held.drain(..));
        held.map(|held| held.forward).filter(|forward| forward.copies.lose()).collect()
    }

    /// Passes a forward through the rules after rule `from`.
    fn pass(&mut self, mut forward: Forward<C>, from: RuleId, now: Instant, verdict: &mut Verdict<C>) {
        for at in 0..self.rules.len() {
            let has_room = self.has_room(&forward);
            let armed = &mut self.rules[at];
            if armed.id <= from || !armed.hits(&forward) {
                continue;
            }
            let (id, effect) = (armed.id, armed.rule.effect);
            verdict.hits.push((forward.delivery.clone(), effect.name()));
            match effect {
                Effect::Drop => return verdict.actions.push(Action::Lose(forward)),
                Effect::Truncate(part) => forward.text = truncate(&forward.text, part),
                Effect::Duplicate => {
                    forward.copies.add();
                    self.pass(forward.clone(), id, now, verdict);
                }
                Effect::Disconnect(code) => return self.end(forward, id, Ending::Close(code), now, verdict),
                Effect::Reset => return self.end(forward, id, Ending::Reset, now, verdict),
                Effect::Delay { .. } | Effect::Reorder { .. } | Effect::Stall(_) | Effect::Bandwidth(_) => {
                    if armed.is_over(now) {
                        continue;
                    }
                    if !has_room {
                        armed.stats.overran += 1;
                        return verdict.actions.push(Action::Lose(forward));
                    }
                    let full = armed.hold(forward, now);
                    for forward in full {
                        self.pass(forward, id, now, verdict);
                    }
                    return;
                }
            }
        }
        verdict.actions.push(Action::Deliver(forward));
    }

    /// Returns whether one more forward may be held back.
    fn has_room(&self, forward: &Forward<C>) -> bool {
        let held = self.rules.iter().map(|armed| (armed.held.len(), armed.held_bytes));
        let (messages, bytes) = held.fold((0, 0), |sum, held| (sum.0 + held.0, sum.1 + held.1));
        messages < self.max_held.messages && bytes + forward.text.len() <= self.max_held.bytes
    }

    fn end(&mut self, forward: Forward<C>, id: RuleId, ending: Ending, now: Instant, verdict: &mut Verdict<C>) {
        let receiver = forward.clone();
        self.pass(forward, id, now, verdict);
        verdict.actions.push(Action::End(receiver, ending));
    }
}

impl<C> Armed<C> {
    /// Checks whether the rule hits this forward, and counts it.
    fn hits(&mut self, forward: &Forward<C>) -> bool {
        let rule = &self.rule;
        let matches = rule.to.is_none_or(|to| to == forward.to)
            && rule.device.as_ref().is_none_or(|device| *device == forward.device)
            && rule.client.is_none_or(|client| client == forward.client)
            && rule.payload_type.as_ref().is_none_or(|wanted| {
                outbound::payload_of(&forward.text).and_then(payload::type_of).as_ref() == Some(wanted)
            });
        if !matches {
            return false;
        }
        self.stats.matched += 1;
        let hit = rule.nth.is_none_or(|nth| nth == self.stats.matched)
            && rule.times.is_none_or(|times| self.stats.hits < times)
            && (rule.probability >= 1.0 || self.rng.f64() < rule.probability);
        self.stats.hits += u64::from(hit);
        hit
    }

    /// Returns whether the rule holds nothing back any more: a stall that is over.
    fn is_over(&mut self, now: Instant) -> bool {
        let Effect::Stall(Some(time)) = self.rule.effect else { return false };
        let until = *self.until.get_or_insert_with(|| later(now, time));
        until <= now && self.held.is_empty()
    }

    /// Holds a forward back. Returns the forwards that this releases.
    fn hold(&mut self, forward: Forward<C>, now: Instant) -> Vec<Forward<C>> {
        let due = match self.rule.effect {
            Effect::Delay { by, jitter } => {
                let deviation = jitter.as_secs_f64() * (self.rng.f64() * 2.0 - 1.0);
                let time = Duration::try_from_secs_f64(by.as_secs_f64() + deviation).unwrap_or_default();
                let due = later(now, time).max(self.until.unwrap_or(now));
                self.until = Some(due);
                Some(due)
            }
            Effect::Bandwidth(bytes_per_second) => {
                // The cast is exact: a message has fewer than 2^52 bytes.
                #[allow(clippy::cast_precision_loss)]
                let time = Duration::try_from_secs_f64(forward.text.len() as f64 / bytes_per_second);
                let due = later(self.until.unwrap_or(now).max(now), time.unwrap_or(Duration::MAX));
                self.until = Some(due);
                Some(due)
            }
            Effect::Reorder { hold, .. } => Some(later(now, hold)),
            _ => self.until,
        };
        self.held_bytes += forward.text.len();
        self.held.push_back(Held { forward: Forward { held: true, ..forward }, due });
        match self.rule.effect {
            Effect::Reorder { window, .. } if self.held.len() >= window => self.release_all(),
            _ => Vec::new(),
        }
    }

    /// Removes and returns the forwards that are due by `now`.
    fn due(&mut self, now: Instant) -> Vec<Forward<C>> {
        let is_due = |held: &Held<C>| held.due.is_some_and(|due| due <= now);
        if matches!(self.rule.effect, Effect::Reorder { .. }) {
            return if self.held.front().is_some_and(is_due) { self.release_all() } else { Vec::new() };
        }
        let count = self.held.iter().take_while(|held| is_due(held)).count();
        let due: Vec<_> = self.held.drain(..count).map(|held| held.forward).collect();
        self.held_bytes -= due.iter().map(|forward| forward.text.len()).sum::<usize>();
        due
    }

    /// Removes and returns all held forwards, in the order of their delivery.
    fn release_all(&mut self) -> Vec<Forward<C>> {
        self.held_bytes = 0;
        let mut forwards: Vec<_> = self.held.drain(..).map(|held| held.forward).enumerate().collect();
        if matches!(self.rule.effect, Effect::Reorder { .. }) && forwards.len() > 1 {
            self.rng.shuffle(&mut forwards);
            if forwards.is_sorted_by_key(|(index, _)| *index) {
                // The shuffle left the order unchanged, so it is changed here.
                forwards.rotate_left(1);
            }
        }
        forwards.into_iter().map(|(_, forward)| forward).collect()
    }
}

fn later(now: Instant, time: Duration) -> Instant {
    // An overflow means forever: 10,000,000,000 seconds are more than 300 years.
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(10_000_000_000))
}

fn truncate(text: &Text, part: f64) -> Text {
    // The result is between 0 and the length, so the cast is exact enough. At least one byte goes: the message must
    // break.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let bytes = (text.len() as f64 * part) as usize;
    text.cut(bytes.min(text.len().saturating_sub(1)))
}
