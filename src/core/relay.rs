//! The path of every forward, from the session of its sender to the outbox of its receiver.
//!
//! The ledger counts each forward. The journal and the faults see it only if there is a journal or a fault is armed;
//! otherwise they cost one atomic load.

use std::borrow::Cow;
use std::sync::atomic::AtomicU64 as Counter;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Instant;

use bytes::Bytes;

use super::delivery::{Delivery, Way};
use crate::core::hub::{Client, Device, Forwarded, Found};
use crate::core::lane::Lane;
use crate::core::outbox::Passage;
use crate::core::peer::Role;
use crate::observe::faults::{Action, Copies, FaultStats, Faults, Forward, HeldBounds, Rule, RuleId, Verdict};
use crate::observe::journal::{Direction, Entry, Journal, Kind, Outcome};
use crate::observe::ledger::Ledger;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, DeviceId, Text, outbound};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// A forward, as the journal has it.
struct Passing<'a> {
    direction: Direction,
    device: &'a DeviceId,
    client: ClientId,
    /// Message to the receiver.
    text: Text,
    /// Addresses in it that were rewritten.
    rewritten: usize,
}

impl Passing<'_> {
    /// The receiver.
    fn to(&self) -> Role {
        if self.direction == Direction::ClientToDevice { Role::Device } else { Role::Client }
    }
}

/// Relay of one server.
pub struct Relay {
    ledger: Ledger,
    /// Number of addresses that were rewritten. It decides nothing.
    rewritten: Counter,
    journal: Option<Arc<Journal>>,
    /// Locked while a forward is delivered: so a rule is armed or not for the whole forward, and the order is kept.
    faults: Mutex<Faults<Delivery>>,
    /// Whether there is a journal, or a fault is armed.
    watched: AtomicBool,
    /// Waker of the task that calls [`Relay::release`] in time.
    waker: Mutex<Option<Waker>>,
}

impl Relay {
    /// Creates a relay without faults. `max_held` limits the forwards that all faults together hold back.
    pub fn new(journal: Option<Arc<Journal>>, max_held: HeldBounds) -> Self {
        Self {
            ledger: Ledger::default(),
            rewritten: Counter::default(),
            watched: AtomicBool::new(journal.is_some()),
            journal,
            faults: Mutex::new(Faults::new(0, max_held)),
            waker: Mutex::default(),
        }
    }

    /// Sets the bounds on the forwards that all faults together hold back. Those that are held stay.
    pub fn set_max_held(&self, max_held: HeldBounds) {
        self.faults.lock().set_max_held(max_held);
    }

    /// Returns the ledger.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Returns the number of addresses that were rewritten (docs/protocol.md 5.5).
    pub fn addresses_rewritten(&self) -> u64 {
        self.rewritten.load(Relaxed)
    }

    /// Returns the journal, if there is one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// Relays a client's forward to its device. Returns the number of messages in the device's outbox; 0 if that is not
    /// known.
    ///
    /// # Errors
    /// [`Refusal::ForwardTooLarge`] if the message is longer than the device takes (docs/protocol.md 2.8).
    pub fn to_device(
        &self,
        device: &Arc<Device>,
        client: &Arc<Client>,
        payload: &str,
        now: Instant,
    ) -> Result<usize, Refusal> {
        self.ledger.count_accepted();
        let message = outbound::client_msg(client.id, payload);
        let limit = device.peer.max_message;
        let passing = |text| Passing {
            direction: Direction::ClientToDevice,
            device: &device.id,
            client: client.id,
            text,
            rewritten: 0,
        };
        if message.len() > limit {
            self.ledger.count_refused();
            let size = message.len();
            self.record(passing(message), Outcome::Refused, Vec::new());
            return Err(Refusal::ForwardTooLarge { size, limit });
        }
        if self.watched.load(Ordering::Acquire) {
            return Ok(self.watch(passing(message), Way::between(device, client), now));
        }
        // If it is gone, the device or the client is leaving. In both cases the client's connection is closed, which
        // satisfies docs/protocol.md 2.3.
        Ok(self.queued(device.push_to_device(client, message, Passage::Direct, now)))
    }

    /// Returns the number of messages in the receiver's outbox. A forward whose receiver has left counts as gone.
    fn queued(&self, forwarded: Forwarded) -> usize {
        match forwarded {
            Forwarded::Queued(messages) => messages,
            Forwarded::Gone => {
                self.ledger.count_gone(1);
                0
            }
        }
    }

    /// Relays a device's forward to one of its clients. Returns the number of messages in the client's outbox; 0 if that
    /// is not known.
    ///
    /// If the client has left, the device gets `client_disconnected` (docs/protocol.md 4.1.20).
    ///
    /// # Errors
    /// [`Refusal::UnknownClient`] if the id was never given out (docs/protocol.md 4.1.19).
    pub fn to_client(&self, device: &Arc<Device>, id: ClientId, payload: &str, now: Instant) -> Result<usize, Refusal> {
        self.ledger.count_accepted();
        let rewritten = device.advertise.as_ref().and_then(|rules| rules.rewrite(payload));
        let (payload, rewritten) = rewritten.as_ref().map_or((payload, 0), |(payload, count)| (&**payload, *count));
        let passing =
            |text| Passing { direction: Direction::DeviceToClient, device: &device.id, client: id, text, rewritten };
        let record_undelivered = |outcome| {
            if self.journal.is_some() {
                self.record(passing(outbound::device_msg(payload)), outcome, Vec::new());
            }
        };
        match device.find(id) {
            Found::Here(client) => {
                let message = outbound::device_msg(payload);
                if rewritten > 0 {
                    self.rewritten.fetch_add(rewritten as u64, Relaxed);
                }
                if self.watched.load(Ordering::Acquire) {
                    return Ok(self.watch(passing(message), Way::between(device, &client), now));
                }
                return Ok(self.queued(device.push_to_client(&client, message, Passage::Direct, now)));
            }
            Found::Left => {
                record_undelivered(Outcome::Gone);
                device.notify_left(id);
                self.ledger.count_gone(1);
            }
            Found::Never => {
                record_undelivered(Outcome::Refused);
                self.ledger.count_refused();
                return Err(Refusal::UnknownClient(id));
            }
        }
        Ok(0)
    }

    /// Passes on a forward between a peer and another server. `frames` are those in which it came.
    pub fn pass(
        &self,
        to: Role,
        (device, client): (&DeviceId, ClientId),
        text: Text,
        frames: Bytes,
        lane: &Arc<Lane>,
        now: Instant,
    ) {
        self.ledger.count_accepted();
        if self.watched.load(Ordering::Acquire) {
            let way = Way::Lane { lane: Arc::clone(lane), frames, length: text.len() };
            let direction = if to == Role::Device { Direction::ClientToDevice } else { Direction::DeviceToClient };
            self.watch(Passing { direction, device, client, text, rewritten: 0 }, way, now);
            return;
        }
        self.queued(lane.push_forward(frames.into(), true));
    }

    /// Passes a forward through the faults and into the journal. Returns the number of messages in the receiver's outbox; 0
    /// if that is not known.
    fn watch(&self, passing: Passing<'_>, way: Way, now: Instant) -> usize {
        let mut faults = self.faults.lock();
        if faults.is_empty() {
            // Under the lock, as all that is recorded: the journal has the order of the outboxes.
            return self.record_and_queue(passing, &way, now);
        }
        let sooner = self.judge(&mut faults, passing, way, now);
        drop(faults);
        if sooner {
            self.wake();
        }
        0
    }

    /// Records a forward that no fault can hit, and queues it.
    fn record_and_queue(&self, passing: Passing<'_>, way: &Way, now: Instant) -> usize {
        let (to, text) = (passing.to(), passing.text.clone());
        let number = self.record(passing, Outcome::Passed, Vec::new());
        let forwarded = way.push(to, &text, Passage::Direct, now);
        if let (Forwarded::Gone, Some(journal), Some(number)) = (&forwarded, &self.journal, number) {
            journal.settle(number, Outcome::Gone);
        }
        self.queued(forwarded)
    }

    /// Lets the faults decide about a forward, records it and does what they say. Returns whether the next release is
    /// sooner than before.
    fn judge(&self, faults: &mut Faults<Delivery>, passing: Passing<'_>, way: Way, now: Instant) -> bool {
        let delivery = Delivery { way, entry: Arc::default() };
        let entry = Arc::clone(&delivery.entry);
        let forward = Forward {
            to: passing.to(),
            device: passing.device.clone(),
            client: passing.client,
            text: passing.text.clone(),
            held: false,
            copies: Copies::default(),
            delivery,
        };
        let due = faults.next_due();
        let Verdict { actions, hits } = faults.judge(forward, now);
        // The verdict may also decide on forwards that a rule has released because of this one.
        let (own, others): (Vec<_>, Vec<_>) =
            hits.into_iter().partition(|(delivery, _)| Arc::ptr_eq(&delivery.entry, &entry));
        let hit_by = own.into_iter().map(|(_, fault)| fault).collect();
        let outcome = if is_lost(&entry, &actions) { Outcome::Dropped } else { Outcome::Passed };
        // Recorded before it is delivered, so that its answer has a later entry.
        if let Some(number) = self.record(passing, outcome, hit_by) {
            let _first = entry.set(number);
        }
        self.apply(Verdict { actions, hits: others }, now);
        faults.next_due().is_some_and(|next| due.is_none_or(|due| next < due))
    }

    fn apply(&self, verdict: Verdict<Delivery>, now: Instant) {
        if let Some(journal) = &self.journal {
            for (delivery, fault) in verdict.hits {
                delivery.entry.get().inspect(|number| journal.add_fault(**number, fault));
            }
        }
        for action in verdict.actions {
            match action {
                Action::Deliver(forward) => self.deliver(&forward, now),
                Action::Lose(forward) => {
                    if forward.copies.lose() {
                        self.ledger.count_dropped();
                        self.settle(&forward, Outcome::Dropped);
                    }
                }
                Action::End(forward, ending) => forward.delivery.way.end(forward.to, ending),
            }
        }
    }

    fn deliver(&self, forward: &Forward<Delivery>, now: Instant) {
        let counts = forward.copies.deliver();
        let passage = match (counts, forward.held) {
            (false, _) => Passage::Copy,
            (true, true) => Passage::Released,
            (true, false) => Passage::Direct,
        };
        let forwarded = forward.delivery.way.push(forward.to, &forward.text, passage, now);
        if forwarded == Forwarded::Gone && counts {
            self.ledger.count_gone(1);
            self.settle(forward, Outcome::Gone);
        }
    }

    fn record(&self, passing: Passing<'_>, outcome: Outcome, faults: Vec<&'static str>) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        let Passing { direction, device, client, text, rewritten } = passing;
        Some(journal.record(Entry {
            number: 0,
            at: 0.0,
            kind: Kind::Message,
            direction,
            device: Some(device.clone()),
            client: Some(client),
            connection: 0,
            message_type: Cow::Borrowed("forward"),
            text,
            outcome,
            faults,
            rewritten,
        }))
    }

    fn settle(&self, forward: &Forward<Delivery>, outcome: Outcome) {
        if let (Some(journal), Some(number)) = (&self.journal, forward.delivery.entry.get()) {
            journal.settle(*number, outcome);
        }
    }

    // Faults ---------------------------------------------------------------------------------------------------------

    /// Arms a fault. It applies from the next forward on.
    pub fn arm(&self, rule: Rule) -> RuleId {
        let mut faults = self.faults.lock();
        self.watched.store(true, Ordering::Release);
        faults.arm(rule)
    }

    /// Removes a fault and releases the forwards that it holds. `None` if it is not armed.
    pub fn disarm(&self, id: RuleId, now: Instant) -> Option<FaultStats> {
        let mut faults = self.faults.lock();
        let (stats, verdict) = faults.remove(id, now)?;
        self.apply(verdict, now);
        self.watched.store(self.journal.is_some() || !faults.is_empty(), Ordering::Release);
        drop(faults);
        self.wake();
        Some(stats)
    }

    /// Returns the faults that are armed, in the order in which they apply.
    pub fn faults(&self) -> Vec<(RuleId, Rule, FaultStats)> {
        self.faults.lock().list()
    }

    /// Returns the counters of a fault; `None` if it is not armed.
    pub fn fault_stats(&self, id: RuleId) -> Option<FaultStats> {
        self.faults.lock().stats(id)
    }

    /// Sets the seed of random choices, for faults that are armed from now on.
    pub fn set_seed(&self, seed: u64) {
        self.faults.lock().set_seed(seed);
    }

    /// Releases the forwards that are due by `now`. Returns the time of the next one.
    ///
    /// The task of `cx` is woken if that time changes to an earlier one.
    pub fn release(&self, cx: &Context<'_>, now: Instant) -> Option<Instant> {
        // The waker is stored first, so that a forward that is held back from now on finds it.
        *self.waker.lock() = Some(cx.waker().clone());
        self.release_due(now)
    }

    /// Releases the forwards that are due by `now`. Returns the time of the next one.
    pub fn release_due(&self, now: Instant) -> Option<Instant> {
        let mut faults = self.faults.lock();
        if faults.next_due().is_some_and(|due| due <= now) {
            let verdict = faults.release(now);
            self.apply(verdict, now);
        }
        faults.next_due()
    }

    /// Counts all held forwards as gone and drops the waker, after all connections have ended.
    ///
    /// A waker would keep the descriptors of the runtime open.
    pub fn abandon(&self) {
        *self.waker.lock() = None;
        for forward in self.faults.lock().abandon() {
            self.ledger.count_gone(1);
            self.settle(&forward, Outcome::Gone);
        }
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }
}

/// Returns whether the actions lose the forward with this entry: each of its copies, none of which is held.
fn is_lost(entry: &Arc<OnceLock<u64>>, actions: &[Action<Delivery>]) -> bool {
    let lost = |action: &Action<Delivery>| match action {
        Action::Lose(forward) if Arc::ptr_eq(&forward.delivery.entry, entry) => Some(forward.copies.left()),
        _ => None,
    };
    let lost: Vec<usize> = actions.iter().filter_map(lost).collect();
    lost.first().is_some_and(|copies| *copies == lost.len())
}
