//! The one way every forward takes, from its sender's session to its receiver's outbox, with those who watch it: the
//! ledger always, the journal and the faults where there are any. Where there are none, that costs one atomic load.

use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Instant;

use crate::core::hub::{Client, Device, Forwarded, Found};
use crate::core::outbox::End;
use crate::core::peer::Role;
use crate::observe::faults::{Action, Ending, Fate, Faults, Parcel, Rule, RuleId, Tally};
use crate::observe::journal::{Direction, Entry, Journal, Kind, Outcome};
use crate::observe::ledger::Ledger;
use crate::protocol::refusal::Refusal;
use crate::protocol::{ClientId, Text, outbound};
use crate::sync::{AtomicBool, Mutex, Ordering};

/// What it takes to deliver a forward.
#[derive(Debug, Clone)]
struct Cargo {
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
    faults: Mutex<Faults<Cargo>>,
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
        self.ledger.accept();
        let message = outbound::client_msg(client.id, payload);
        let limit = device.peer.max_message;
        if message.len() > limit {
            self.ledger.refuse();
            let size = message.len();
            self.record(Direction::ClientToDevice, device, client.id, message, Outcome::Refused, Vec::new());
            return Err(Refusal::ForwardTooLarge { size, limit });
        }
        if self.watched.load(Ordering::Acquire) {
            self.watch(Role::Device, device, client, message, now);
        } else if device.push_to_device(client, message, true) == Forwarded::Gone {
            // The device is leaving or this client is: whichever it is, the client's connection is closed for it.
            self.ledger.lose(1);
        }
        Ok(())
    }

    /// A device's forward to one of its clients.
    ///
    /// # Errors
    /// What the device is to be told.
    pub fn to_client(&self, device: &Arc<Device>, id: ClientId, payload: &str, now: Instant) -> Result<(), Refusal> {
        self.ledger.accept();
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
                    self.ledger.lose(1);
                }
            }
            Found::Left => {
                missed(Outcome::Gone);
                device.tell_left(id);
                self.ledger.lose(1);
            }
            Found::Never => {
                missed(Outcome::Refused);
                self.ledger.refuse();
                return Err(Refusal::UnknownClient(id));
            }
        }
        Ok(())
    }

    /// The way past the faults, and into the journal.
    fn watch(&self, to: Role, device: &Arc<Device>, client: &Arc<Client>, text: Text, now: Instant) {
        let cargo = Cargo { device: Arc::clone(device), client: Arc::clone(client), entry: Arc::default() };
        let entry = Arc::clone(&cargo.entry);
        let parcel =
            Parcel { to, device: device.id.clone(), client: client.id, text: text.clone(), copy: false, cargo };
        let mut faults = self.faults.lock();
        let due = faults.next_due();
        let Fate { actions, hit_by } = faults.judge(parcel, now);
        let lost = actions.iter().any(|action| matches!(action, Action::Lose(parcel) if !parcel.copy));
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

    fn act(&self, actions: Vec<Action<Cargo>>) {
        for action in actions {
            match action {
                Action::Deliver(parcel) => self.deliver(&parcel),
                Action::Lose(parcel) => {
                    if !parcel.copy {
                        self.ledger.drop_one();
                        self.settle(&parcel, Outcome::Dropped);
                    }
                }
                Action::End(parcel, ending) => {
                    let receiver = if parcel.to == Role::Device {
                        &parcel.cargo.device.outbox
                    } else {
                        &parcel.cargo.client.outbox
                    };
                    receiver.finish(
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

    fn deliver(&self, parcel: &Parcel<Cargo>) {
        let Cargo { device, client, .. } = &parcel.cargo;
        let forwarded = match parcel.to {
            Role::Device => device.push_to_device(client, parcel.text.clone(), !parcel.copy),
            _ => device.push_to_client(client, parcel.text.clone(), !parcel.copy),
        };
        if forwarded == Forwarded::Gone && !parcel.copy {
            self.ledger.lose(1);
            self.settle(parcel, Outcome::Gone);
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

    fn settle(&self, parcel: &Parcel<Cargo>, outcome: Outcome) {
        if let (Some(journal), Some(number)) = (&self.journal, parcel.cargo.entry.get()) {
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
    pub fn disarm(&self, id: RuleId, now: Instant) -> Option<Tally> {
        let mut faults = self.faults.lock();
        let (tally, fate) = faults.remove(id, now)?;
        self.act(fate.actions);
        self.watched.store(self.journal.is_some() || !faults.is_empty(), Ordering::Release);
        drop(faults);
        self.wake();
        Some(tally)
    }

    /// What became of a fault so far, if it is armed.
    pub fn tally(&self, id: RuleId) -> Option<Tally> {
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
            let fate = faults.release(now);
            self.act(fate.actions);
        }
        faults.next_due()
    }

    /// Everybody has left: what faults hold back is gone, and nobody is to be woken. (A waker keeps the runtime's
    /// descriptors open.)
    pub fn abandon(&self) {
        *self.waker.lock() = None;
        self.ledger.lose(self.faults.lock().abandon());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().take() {
            waker.wake();
        }
    }
}
