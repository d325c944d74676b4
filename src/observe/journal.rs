//! What was said, in order: a bounded ring of entries, and questions to it. Layer 1: records and finds; waits for
//! nothing and knows no clock of its own.

use std::collections::VecDeque;

use crate::protocol::Role;
use crate::protocol::{ClientId, DeviceId, Text, outbound, payload};
use crate::sync::Mutex;

/// Who said it, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `register`, and what is no forward.
    DeviceToServer,
    /// `config`, `client_disconnected`, `error`.
    ServerToDevice,
    /// `connect`, and what is no forward.
    ClientToServer,
    /// `config`, `device_info`, `error`.
    ServerToClient,
    /// A forward.
    DeviceToClient,
    /// A forward.
    ClientToDevice,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DeviceToServer,
        Self::ServerToDevice,
        Self::ClientToServer,
        Self::ServerToClient,
        Self::DeviceToClient,
        Self::ClientToDevice,
    ];

    /// As users write it: `device->client`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceToServer => "device->server",
            Self::ServerToDevice => "server->device",
            Self::ClientToServer => "client->server",
            Self::ServerToClient => "server->client",
            Self::DeviceToClient => "device->client",
            Self::ClientToDevice => "client->device",
        }
    }

    /// From a peer of this role, to the server.
    pub fn from(role: Role) -> Self {
        if role == Role::Device { Self::DeviceToServer } else { Self::ClientToServer }
    }

    /// From the server, to a peer of this role.
    pub fn to(role: Role) -> Self {
        if role == Role::Device { Self::ServerToDevice } else { Self::ServerToClient }
    }
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Message,
    /// A connection ended: the side that the direction starts from has ended it. The text says how, for people.
    Closed,
}

/// What became of a forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It went on to its receiver's outbox, now or later. Also of all that is no forward.
    Passed,
    /// Its receiver was gone.
    Gone,
    /// Its sender was told an error.
    Refused,
    /// A fault dropped it.
    Dropped,
}

impl Outcome {
    /// As users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Something that was said.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Counts up by one, from 1.
    pub number: u64,
    /// When, in seconds since 1970, by the server's clock.
    pub at: f64,
    /// A message or an end.
    pub kind: Kind,
    /// From whom to whom.
    pub direction: Direction,
    /// The device concerned, if it is known.
    pub device: Option<DeviceId>,
    /// The client concerned, if there is one and it has a number.
    pub client: Option<ClientId>,
    /// `register`, `config`, `forward`, …; what a peer called it, or empty if that can not be read.
    pub message_type: String,
    /// The whole text: of a forward as its receiver gets it, of anything else as it was said.
    pub text: Text,
    /// What became of it.
    pub outcome: Outcome,
    /// The faults that hit it.
    pub faults: Vec<&'static str>,
}

impl Entry {
    /// The payload of a forward, as JSON text.
    pub fn payload(&self) -> Option<&str> {
        if self.message_type == "forward" { outbound::payload_of(&self.text) } else { None }
    }

    /// The `"type"` of the payload, read when it is asked for.
    pub fn payload_type(&self) -> Option<String> {
        payload::type_of(self.payload()?)
    }
}

/// What is looked for. `None` is anything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Messages or ends.
    pub kind: Option<Kind>,
    /// From whom to whom.
    pub direction: Option<Direction>,
    /// The device concerned.
    pub device: Option<DeviceId>,
    /// The client concerned.
    pub client: Option<ClientId>,
    /// What the envelope calls it.
    pub message_type: Option<String>,
    /// What the payload calls itself.
    pub payload_type: Option<String>,
}

impl Filter {
    /// Whether an entry is what is looked for.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.kind.is_none_or(|kind| kind == entry.kind)
            && self.direction.is_none_or(|direction| direction == entry.direction)
            && self.device.as_ref().is_none_or(|device| Some(device) == entry.device.as_ref())
            && self.client.is_none_or(|client| Some(client) == entry.client)
            && self.message_type.as_ref().is_none_or(|wanted| *wanted == entry.message_type)
            && self.payload_type.as_ref().is_none_or(|wanted| entry.payload_type().as_ref() == Some(wanted))
    }
}

/// Whom a journal turns to: for the time, and to say that there is something new. Called with locks of the peer's
/// held: has to be quick, and must not call back.
pub trait JournalObserver: Send + Sync + 'static {
    /// The time, in seconds since 1970.
    fn now(&self) -> f64;
    /// An entry has been recorded.
    fn recorded(&self);
}

/// How much a journal keeps. Beyond either bound, the oldest goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalBounds {
    /// Entries.
    pub entries: usize,
    /// Bytes of their texts.
    pub bytes: usize,
}

/// The ring.
pub struct Journal {
    bounds: JournalBounds,
    observer: Box<dyn JournalObserver>,
    state: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    last_number: u64,
}

impl Journal {
    /// An empty journal.
    pub fn new(bounds: JournalBounds, observer: Box<dyn JournalObserver>) -> Self {
        Self { bounds, observer, state: Mutex::default() }
    }

    /// Records an entry; number and time are given here. Returns the number.
    pub fn record(&self, mut entry: Entry) -> u64 {
        let number = {
            let mut ring = self.state.lock();
            // Within the lock: times never go back from one entry to the next.
            entry.at = self.observer.now();
            ring.last_number += 1;
            entry.number = ring.last_number;
            ring.bytes += entry.text.len();
            ring.entries.push_back(entry);
            ring.shrink(self.bounds);
            ring.last_number
        };
        self.observer.recorded();
        number
    }

    /// Records late what became of a forward.
    pub fn settle(&self, number: u64, outcome: Outcome) {
        let mut ring = self.state.lock();
        let behind = ring.last_number.checked_sub(number).and_then(|behind| usize::try_from(behind).ok());
        let at = behind.and_then(|behind| ring.entries.len().checked_sub(behind + 1));
        if let Some(entry) = at.and_then(|at| ring.entries.get_mut(at)) {
            entry.outcome = outcome;
        }
    }

    /// The entries that match, those after the one of this number, the oldest first.
    pub fn find(&self, filter: &Filter, after: u64, limit: usize) -> Vec<Entry> {
        // Copied first: entries share their texts, and reading payload types takes longer than that.
        let entries: Vec<_> = {
            let ring = self.state.lock();
            let first = ring.entries.partition_point(|entry| entry.number <= after);
            ring.entries.range(first..).cloned().collect()
        };
        entries.into_iter().filter(|entry| filter.matches(entry)).take(limit).collect()
    }

    /// How many were recorded so far, those that are forgotten included: the number of the last.
    pub fn count(&self) -> u64 {
        self.state.lock().last_number
    }

    /// How many the bounds have made it forget.
    pub fn forgotten(&self) -> u64 {
        let ring = self.state.lock();
        ring.last_number - ring.entries.len() as u64
    }
}

impl Ring {
    fn shrink(&mut self, bounds: JournalBounds) {
        while self.entries.len() > bounds.entries || (self.bytes > bounds.bytes && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.text.len();
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

/// Writes down what one peer and the server say to each other. Forwards are not its business: they concern two.
#[derive(Debug)]
pub struct PeerJournal {
    journal: std::sync::Arc<Journal>,
    role: Role,
    place: Mutex<(Option<DeviceId>, Option<ClientId>)>,
}

impl PeerJournal {
    /// For a peer of this role.
    pub fn new(journal: std::sync::Arc<Journal>, role: Role) -> Self {
        Self { journal, role, place: Mutex::default() }
    }

    /// The peer has said which device it is, or wants.
    pub fn concerns(&self, device: &DeviceId) {
        self.place.lock().0 = Some(device.clone());
    }

    /// The client was given its number.
    pub fn is_client(&self, id: ClientId) {
        self.place.lock().1 = Some(id);
    }

    /// The peer has said this, called that.
    pub fn heard(&self, text: &str, message_type: &str) {
        self.write(Direction::from(self.role), Kind::Message, message_type, text.to_owned().into());
    }

    /// The server says this.
    pub fn said(&self, text: &Text) {
        self.write(Direction::to(self.role), Kind::Message, outbound::type_of(text), text.clone());
    }

    /// The server ends the connection.
    pub fn ended(&self, how: String) {
        self.write(Direction::to(self.role), Kind::Closed, "", how.into());
    }

    /// The peer has left.
    pub fn left(&self) {
        self.write(Direction::from(self.role), Kind::Closed, "", String::from("left").into());
    }

    fn write(&self, direction: Direction, kind: Kind, message_type: &str, text: Text) {
        let (device, client) = self.place.lock().clone();
        let message_type = message_type.to_owned();
        let (outcome, faults) = (Outcome::Passed, Vec::new());
        let entry = Entry { number: 0, at: 0.0, kind, direction, device, client, message_type, text, outcome, faults };
        self.journal.record(entry);
    }
}
