//! Faults on purpose: rules that drop, delay, double, mix up, mangle or hold back what is relayed, or end a connection
//! on its occasion. Layer 1: decides, and keeps what is held back; delivers nothing and knows no time of its own.
//!
//! The rules that are armed stand in a row, in the order in which they were armed. A forward passes one after the
//! other; what a rule has held back goes on to those behind it when it is let go. All of it under one lock: a rule
//! is armed or not for the whole of a message.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::Role;
use crate::protocol::{ClientId, DeviceId, Text, outbound, payload};

/// What a rule does to the forwards it hits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Effect {
    /// They are lost.
    Drop,
    /// They come twice.
    Duplicate,
    /// They come broken: only this part of the message, 0 to 1, is left of it.
    Truncate(f64),
    /// They come later, by a time to which up to `jitter` is added or taken away. Their order among each other stays.
    Delay {
        /// The time.
        by: Duration,
        /// How much it varies.
        jitter: Duration,
    },
    /// They are collected, so many at a time, and come in another order; none waits longer than `hold`.
    Reorder {
        /// So many.
        window: usize,
        /// So long.
        hold: Duration,
    },
    /// None comes for this time from the first on, or until the rule is removed.
    Stall(Option<Duration>),
    /// They come no faster than a link of so many bytes per second would carry them.
    Bandwidth(f64),
    /// The receiver's connection is closed with this code, behind the message.
    Disconnect(u16),
    /// The receiver's connection is reset (TCP RST), behind the message.
    Reset,
}

impl Effect {
    /// The name by which users know it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Truncate(_) => "truncate",
            Self::Delay { .. } => "delay",
            Self::Reorder { .. } => "reorder",
            Self::Stall(_) => "stall",
            Self::Bandwidth(_) => "bandwidth",
            Self::Disconnect(_) => "disconnect",
            Self::Reset => "reset",
        }
    }
}

/// A fault: what it does, and to which forwards.
#[derive(Debug, Clone)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// Only those to a device, or to a client.
    pub to: Option<Role>,
    /// Only those of this device and its clients.
    pub device: Option<DeviceId>,
    /// Only those to or from the client of this number.
    pub client: Option<ClientId>,
    /// Only payloads of this `"type"`.
    pub payload_type: Option<String>,
    /// Only the so-manieth of those, from 1.
    pub nth: Option<u64>,
    /// Only this part of those, 0 to 1.
    pub probability: f64,
    /// At most so many of those.
    pub times: Option<u64>,
}

/// What became of a rule so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultStats {
    /// Forwards that it was about: direction, device, client and type.
    pub matched: u64,
    /// Forwards it did something to.
    pub hits: u64,
    /// Forwards it should have held back, and let go at once because too many were held.
    pub overran: u64,
}

/// A rule's place in the row.
pub type RuleId = u64;

/// A forward on its way past the rules. `delivery` is what it takes to deliver it.
#[derive(Debug, Clone)]
pub struct Forward<C> {
    /// The receiver's role.
    pub to: Role,
    /// The device, whichever side it is on.
    pub device: DeviceId,
    /// The client, whichever side it is on.
    pub client: ClientId,
    /// The message, in the receiver's words.
    pub text: Text,
    /// Whether it is a second one of its kind, and not in the books.
    pub copy: bool,
    /// What it takes to deliver it.
    pub delivery: C,
}

/// How a connection ends by a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With a close frame of this code.
    Close(u16),
    /// With a TCP RST.
    Reset,
}

/// What is to be done with a forward now.
#[derive(Debug)]
pub enum Action<C> {
    /// Deliver it.
    Deliver(Forward<C>),
    /// Book it: it is lost.
    Lose(Forward<C>),
    /// End its receiver's connection.
    End(Forward<C>, Ending),
}

/// What happened to one forward, and what is to be done.
#[derive(Debug)]
pub struct Verdict<C> {
    /// What to do, in this order.
    pub actions: Vec<Action<C>>,
    /// The names of the rules that hit it, in their order.
    pub hit_by: Vec<&'static str>,
}

/// The rules that are armed, and what they hold back.
#[derive(Debug)]
pub struct Faults<C> {
    rules: Vec<Armed<C>>,
    last_id: RuleId,
    seed: u64,
    /// How many forwards all rules together may hold back.
    max_held: usize,
}

#[derive(Debug)]
struct Armed<C> {
    id: RuleId,
    rule: Rule,
    tally: FaultStats,
    /// Its own, so that rules do not disturb each other's luck.
    rng: fastrand::Rng,
    held: VecDeque<Held<C>>,
    /// A stall: when it ends. A bandwidth: when the link is free. A delay: when the last one is due.
    until: Option<Instant>,
}

#[derive(Debug)]
struct Held<C> {
    forward: Forward<C>,
    /// `None`: when the rule is removed.
    due: Option<Instant>,
}

impl<C: Clone> Faults<C> {
    /// No rules. What is left to chance goes by `seed`: the same forwards in the same order have the same fate.
    pub fn new(seed: u64, max_held: usize) -> Self {
        Self { rules: Vec::new(), last_id: 0, seed, max_held }
    }

    /// Another seed, for rules armed from now on.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Arms a rule, behind those there are.
    pub fn arm(&mut self, rule: Rule) -> RuleId {
        self.last_id += 1;
        let rng = fastrand::Rng::with_seed(self.seed.wrapping_add(self.last_id));
        let tally = FaultStats::default();
        self.rules.push(Armed { id: self.last_id, rule, tally, rng, held: VecDeque::new(), until: None });
        self.last_id
    }

    /// Removes a rule; what it holds back goes on. `None` if it is not armed.
    pub fn remove(&mut self, id: RuleId, now: Instant) -> Option<(FaultStats, Verdict<C>)> {
        let at = self.rules.iter().position(|armed| armed.id == id)?;
        let mut armed = self.rules.remove(at);
        let mut verdict = Verdict { actions: Vec::new(), hit_by: Vec::new() };
        for forward in armed.let_go() {
            self.pass(forward, id, now, &mut verdict);
        }
        Some((armed.tally, verdict))
    }

    /// What became of a rule so far, if it is armed.
    pub fn tally(&self, id: RuleId) -> Option<FaultStats> {
        self.rules.iter().find(|armed| armed.id == id).map(|armed| armed.tally)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// A forward passes all rules.
    pub fn judge(&mut self, forward: Forward<C>, now: Instant) -> Verdict<C> {
        let mut verdict = Verdict { actions: Vec::new(), hit_by: Vec::new() };
        self.pass(forward, 0, now, &mut verdict);
        verdict
    }

    /// Lets go what has been held back for long enough.
    pub fn release(&mut self, now: Instant) -> Verdict<C> {
        let mut verdict = Verdict { actions: Vec::new(), hit_by: Vec::new() };
        for at in 0..self.rules.len() {
            let (id, due) = (self.rules[at].id, self.rules[at].due(now));
            for forward in due {
                self.pass(forward, id, now, &mut verdict);
            }
        }
        verdict
    }

    /// When to call [`Faults::release`].
    pub fn next_due(&self) -> Option<Instant> {
        self.rules.iter().filter_map(|armed| armed.held.front()?.due).min()
    }

    /// Nobody is there any more: forgets what is held back, and returns how many forwards of the books that were.
    pub fn abandon(&mut self) -> u64 {
        let held = self.rules.iter_mut().flat_map(|armed| armed.held.drain(..));
        held.filter(|held| !held.forward.copy).count() as u64
    }

    /// Past the rules behind `from`.
    fn pass(&mut self, mut forward: Forward<C>, from: RuleId, now: Instant, verdict: &mut Verdict<C>) {
        let mut held: usize = self.rules.iter().map(|armed| armed.held.len()).sum();
        for at in 0..self.rules.len() {
            let armed = &mut self.rules[at];
            if armed.id <= from || !armed.hits(&forward) {
                continue;
            }
            let (id, effect) = (armed.id, armed.rule.effect);
            verdict.hit_by.push(effect.name());
            match effect {
                Effect::Drop => return verdict.actions.push(Action::Lose(forward)),
                Effect::Truncate(part) => forward.text = cut(&forward.text, part),
                Effect::Duplicate => {
                    self.pass(forward.clone(), id, now, verdict);
                    forward.copy = true;
                    held = self.rules.iter().map(|armed| armed.held.len()).sum();
                }
                Effect::Disconnect(code) => return self.end(forward, id, Ending::Close(code), now, verdict),
                Effect::Reset => return self.end(forward, id, Ending::Reset, now, verdict),
                Effect::Delay { .. } | Effect::Reorder { .. } | Effect::Stall(_) | Effect::Bandwidth(_) => {
                    if armed.lets_pass(now) {
                        continue;
                    }
                    if held >= self.max_held {
                        armed.tally.overran += 1;
                        continue;
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

    fn end(&mut self, forward: Forward<C>, id: RuleId, ending: Ending, now: Instant, verdict: &mut Verdict<C>) {
        let receiver = forward.clone();
        self.pass(forward, id, now, verdict);
        verdict.actions.push(Action::End(receiver, ending));
    }
}

impl<C> Armed<C> {
    /// Whether the rule strikes this forward; counts.
    fn hits(&mut self, forward: &Forward<C>) -> bool {
        let rule = &self.rule;
        let about = rule.to.is_none_or(|to| to == forward.to)
            && rule.device.as_ref().is_none_or(|device| *device == forward.device)
            && rule.client.is_none_or(|client| client == forward.client)
            && rule.payload_type.as_ref().is_none_or(|wanted| {
                outbound::payload_of(&forward.text).and_then(payload::type_of).as_ref() == Some(wanted)
            });
        if !about {
            return false;
        }
        self.tally.matched += 1;
        let strikes = rule.nth.is_none_or(|nth| nth == self.tally.matched)
            && rule.times.is_none_or(|times| self.tally.hits < times)
            && (rule.probability >= 1.0 || self.rng.f64() < rule.probability);
        self.tally.hits += u64::from(strikes);
        strikes
    }

    /// Whether it holds nothing back any more: a stall that is over.
    fn lets_pass(&mut self, now: Instant) -> bool {
        let Effect::Stall(Some(time)) = self.rule.effect else { return false };
        let until = *self.until.get_or_insert_with(|| later(now, time));
        until <= now && self.held.is_empty()
    }

    /// Holds a forward back. Returns what is let go for it.
    fn hold(&mut self, forward: Forward<C>, now: Instant) -> Vec<Forward<C>> {
        let due = match self.rule.effect {
            Effect::Delay { by, jitter } => {
                let swing = jitter.as_secs_f64() * (self.rng.f64() * 2.0 - 1.0);
                let time = Duration::try_from_secs_f64(by.as_secs_f64() + swing).unwrap_or_default();
                let due = later(now, time).max(self.until.unwrap_or(now));
                self.until = Some(due);
                Some(due)
            }
            Effect::Bandwidth(bytes_per_second) => {
                // A message has fewer than 2^52 bytes.
                #[allow(clippy::cast_precision_loss)]
                let time = Duration::try_from_secs_f64(forward.text.len() as f64 / bytes_per_second);
                let due = later(self.until.unwrap_or(now).max(now), time.unwrap_or(Duration::MAX));
                self.until = Some(due);
                Some(due)
            }
            Effect::Reorder { hold, .. } => Some(later(now, hold)),
            _ => self.until,
        };
        self.held.push_back(Held { forward, due });
        match self.rule.effect {
            Effect::Reorder { window, .. } if self.held.len() >= window => self.let_go(),
            _ => Vec::new(),
        }
    }

    /// What is due by now.
    fn due(&mut self, now: Instant) -> Vec<Forward<C>> {
        let is_due = |held: &Held<C>| held.due.is_some_and(|due| due <= now);
        if matches!(self.rule.effect, Effect::Reorder { .. }) {
            return if self.held.front().is_some_and(is_due) { self.let_go() } else { Vec::new() };
        }
        let count = self.held.iter().take_while(|held| is_due(held)).count();
        self.held.drain(..count).map(|held| held.forward).collect()
    }

    /// All it holds back, in the order in which it is to go on.
    fn let_go(&mut self) -> Vec<Forward<C>> {
        let mut parcels: Vec<_> = self.held.drain(..).map(|held| held.forward).enumerate().collect();
        if matches!(self.rule.effect, Effect::Reorder { .. }) && parcels.len() > 1 {
            self.rng.shuffle(&mut parcels);
            if parcels.is_sorted_by_key(|(came, _)| *came) {
                // Chance has put them where they were; they are to come otherwise.
                parcels.rotate_left(1);
            }
        }
        parcels.into_iter().map(|(_, forward)| forward).collect()
    }
}

fn later(now: Instant, time: Duration) -> Instant {
    // Three hundred years are for ever.
    now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(10_000_000_000))
}

fn cut(text: &Text, part: f64) -> Text {
    // Between 0 and the length: the cast is exact enough. At least one byte is missing, or it would not be broken.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let bytes = (text.len() as f64 * part) as usize;
    text.cut(bytes.min(text.len().saturating_sub(1)))
}
