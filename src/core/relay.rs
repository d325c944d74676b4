//! The one way every forward takes, from its sender's session to its receiver's outbox, with those who watch it: the
//! ledger always, the journal and the faults where there are any. Where there are none, that costs one atomic load.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Instant;

use crate::core::hub::{Client, Device, Forwarded, Found};
use crate::core::outbox::End;
use crate::core::peer::Role;
use crate::observe::faults::{Action, Ending, FaultStats, Faults, Forward, Rule, RuleId, Verdict};
use crate::observe::journal::{Direction, Entry, Journal, Kind, Outcome};
use crate::observe::ledger::Ledger;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, Text, outbound};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// What it takes to deliver a forward.
#[derive(Debug, Clone)]
struct Delivery {
    device: Arc<Device>,
    client: Arc<Client>,
    /// Its number in the journal, once it has one.
    entry: Arc<OnceLock<u64>>,
}

/// The way of all forwards through one server.
pub struct Relay {
    ledger: Ledger,
    journal: Option<Arc<Journal>>,
    /// Held while a forward is delivered: so a rule is armed or not for all of it, and order stays order.
    faults: Mutex<Faults<Delivery>>,
    /// Whether there is a journal, or a rule is armed.
    watched: AtomicBool,
    /// Whoever calls [`Relay::release`] in time.
    waker: Mutex<Option<Waker>>,
}

impl Relay {
    /// Without faults. `max_held` is how many forwards they may hold back at a time.
    pub fn new(journal: Option<Arc<Journal>>, max_held: usize) -> Self {
        Self {
            ledger: Ledger::default(),
            watched: AtomicBool::new(journal.is_some()),
            journal,
            faults: Mutex::new(Faults::new(0, max_held)),
            waker: Mutex::default(),
        }
    }

    /// The books.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The journal, if there is one.
    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
    }

    /// A client's forward to its device.
    ///
    /// # Errors
    /// What the client is to be told.
    pub fn to_device(
        &self,
        device: &Arc<Device>,
        client: &Arc<Client>,
        payload: &str,
        now: Instant,
    ) -> Result<(), Refusal> {
        self.ledger.count_accepted();
        let message = outbound::client_msg(client.id, payload);
        let limit = device.peer.max_message;
        if message.len() > limit {
            self.ledger.count_refused();
            let size = message.len();
            self.record(Direction::ClientToDevice, device, client.id, message, Outcome::Refused, Vec::new());
            return Err(Refusal::ForwardTooLarge { size, limit });
        }
        if self.watched.load(Ordering::Acquire) {
            self.watch(Role::Device, device, client, message, now);
        } else if device.push_to_device(client, message, true) == Forwarded::Gone {
            // The device is leaving or this client is: whichever it is, the client's connection is closed for it.
            self.ledger.count_gone(1);
        }
        Ok(())
    }

    /// A device's forward to one of its clients.
    ///
    /// # Errors
    /// What the device is to be told.
    pub fn to_client(&self, device: &Arc<Device>, id: ClientId, payload: &str, now: Instant) -> Result<(), Refusal> {
        self.ledger.count_accepted();
        let missed = |outcome| {
            if self.journal.is_some() {
                let message = outbound::device_msg(payload);
                self.record(Direction::DeviceToClient, device, id, message, outcome, Vec::new());
            }
        };
        match device.find(id) {
            Found::Here(client) => {
                let message = outbound::device_msg(payload);
                if self.watched.load(Ordering::Acquire) {
                    self.watch(Role::Client, device, &client, message, now);
                } else if device.push_to_client(&client, message, true) == Forwarded::Gone {
                    self.ledger.count_gone(1);
                }
            }
            Found::Left => {
                missed(Outcome::Gone);
                device.tell_left(id);
                self.ledger.count_gone(1);
            }
            Found::Never => {
                missed(Outcome::Refused);
                self.ledger.count_refused();
                return Err(Refusal::UnknownClient(id));
            }
        }
        Ok(())
    }

    /// The way past the faults, and into the journal.
    fn watch(&self, to: Role, device: &Arc<Device>, client: &Arc<Client>, text: Text, now: Instant) {
        let delivery = Delivery { device: Arc::clone(device), client: Arc::clone(client), entry: Arc::default() };
        let entry = Arc::clone(&delivery.entry);
        let forward =
            Forward { to, device: device.id.clone(), client: client.id, text: text.clone(), copy: false, delivery };
        let mut faults = self.faults.lock();
        let due = faults.next_due();
        let Verdict { actions, hit_by } = faults.judge(forward, now);
        let lost = actions.iter().any(|action| matches!(action, Action::Lose(forward) if !forward.copy));
        let outcome = if lost { Outcome::Dropped } else { Outcome::Passed };
        let direction = if to == Role::Device { Direction::ClientToDevice } else { Direction::DeviceToClient };
        // Before it is delivered: its answer is to stand behind it.
        if let Some(number) = self.record(direction, device, client.id, text, outcome, hit_by) {
            let _first = entry.set(number);
        }
        self.act(actions);
        let sooner = faults.next_due().is_some_and(|next| due.is_none_or(|due| next < due));
        drop(faults);
        if sooner {
            self.wake();
        }
    }

    fn act(&self, actions: Vec<Action<Delivery>>) {
        for action in actions {
            match action {
                Action::Deliver(forward) => self.deliver(&forward),
                Action::Lose(forward) => {
                    if !forward.copy {
                        self.ledger.count_dropped();
                        self.settle(&forward, Outcome::Dropped);
                    }
                }
                Action::End(forward, ending) => {
                    let receiver = if forward.to == Role::Device {
                        &forward.delivery.device.outbox
                    } else {
                        &forward.delivery.client.outbox
                    };
                    receiver.close(
                        None,
                        match ending {
                            Ending::Close(code) => End::close(code, "fault"),
                            Ending::Reset => End::Reset,
                        },
                    );
                }
            }
        }
    }

    fn deliver(&self, forward: &Forward<Delivery>) {
        let Delivery { device, client, .. } = &forward.delivery;
        let forwarded = match forward.to {
            Role::Device => device.push_to_device(client, forward.text.clone(), !forward.copy),
            _ => device.push_to_client(client, forward.text.clone(), !forward.copy),
        };
        if forwarded == Forwarded::Gone && !forward.copy {
            self.ledger.count_gone(1);
            self.settle(forward, Outcome::Gone);
        }
    }

    fn record(
        &self,
        direction: Direction,
        device: &Device,
        client: ClientId,
        text: Text,
        outcome: Outcome,
        faults: Vec<&'static str>,
    ) -> Option<u64> {
        let journal = self.journal.as_ref()?;
        Some(journal.record(Entry {
            number: 0,
            at: 0.0,
            kind: Kind::Message,
            direction,
            device: Some(device.id.clone()),
            client: Some(client),
            message_type: "forward".into(),
            text,
            outcome,
            faults,
        }))
    }

    fn settle(&self, forward: &Forward<Delivery>, outcome: Outcome) {
        if let (Some(journal), Some(number)) = (&self.journal, forward.delivery.entry.get()) {
            journal.settle(*number, outcome);
        }
    }

    // Faults ---------------------------------------------------------------------------------------------------------

    /// Arms a fault: it strikes from the next forward on.
    pub fn arm(&self, rule: Rule) -> RuleId {
        let mut faults = self.faults.lock();
        self.watched.store(true, Ordering::Release);
        faults.arm(rule)
    }

    /// Removes a fault; what it holds back goes on at once. `None` if it is not armed.
    pub fn disarm(&self, id: RuleId, now: Instant) -> Option<FaultStats> {
        let mut faults = self.faults.lock();
        let (tally, verdict) = faults.remove(id, now)?;
        self.act(verdict.actions);
        self.watched.store(self.journal.is_some() || !faults.is_empty(), Ordering::Release);
        drop(faults);
        self.wake();
        Some(tally)
    }

    /// What became of a fault so far, if it is armed.
    pub fn tally(&self, id: RuleId) -> Option<FaultStats> {
        self.faults.lock().tally(id)
    }

    /// What is left to chance goes by this seed, in faults armed from now on.
    pub fn set_seed(&self, seed: u64) {
        self.faults.lock().set_seed(seed);
    }

    /// Lets go what faults have held back for long enough. Returns when there will be more, and wakes whoever asks
    /// should it be sooner.
    pub fn release(&self, cx: &Context<'_>, now: Instant) -> Option<Instant> {
        // Whoever holds something back from now on finds the waker.
        *self.waker.lock() = Some(cx.waker().clone());
        self.release_due(now)
    }

    /// Lets go what faults have held back for long enough. Returns when there will be more.
    pub fn release_due(&self, now: Instant) -> Option<Instant> {
        let mut faults = self.faults.lock();
        if faults.next_due().is_some_and(|due| due <= now) {
            let verdict = faults.release(now);
            self.act(verdict.actions);
        }
        faults.next_due()
    }

    /// Everybody has left: what faults hold back is gone, and nobody is to be woken. (A waker keeps the runtime's
    /// descriptors open.)
    pub fn abandon(&self) {
        *self.waker.lock() = None;
        self.ledger.count_gone(self.faults.lock().abandon());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }
}
