//! The journal: a bounded ring of messages in the order in which they were sent, and queries on it.
//!
//! A query never waits. Its observer supplies the time.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::protocol::{ClientId, DeviceId, Role, Text, outbound, payload};
use crate::sync::Mutex;

/// Sender and receiver of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// `register`, and every other message except a forward.
    DeviceToServer,
    /// `config`, `client_disconnected`, errors.
    ServerToDevice,
    /// `connect`, and every other message except a forward.
    ClientToServer,
    /// `config`, `device_info`, errors.
    ServerToClient,
    /// A forward of a device.
    DeviceToClient,
    /// A forward of a client.
    ClientToDevice,
}

impl Direction {
    /// All directions.
    pub const ALL: [Self; 6] = [
        Self::DeviceToServer,
        Self::ServerToDevice,
        Self::ClientToServer,
        Self::ServerToClient,
        Self::DeviceToClient,
        Self::ClientToDevice,
    ];

    /// Returns the form that users write, for example `device->client`.
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

    /// Returns the direction from a peer of this role to the server.
    pub fn from(role: Role) -> Self {
        if role == Role::Device { Self::DeviceToServer } else { Self::ClientToServer }
    }

    /// Returns the direction from the server to a peer of this role.
    pub fn to(role: Role) -> Self {
        if role == Role::Device { Self::ServerToDevice } else { Self::ServerToClient }
    }
}

/// Kind of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Message,
    /// The end of a connection. The direction starts at the side that ended it. The text is a description for people.
    Closed,
}

/// Outcome of a forward. Every other entry has [`Outcome::Passed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It went on to the outbox of its receiver, or is held back by a fault.
    Passed,
    /// Its receiver had left.
    Gone,
    /// Its sender got an error.
    Refused,
    /// A fault dropped it.
    Dropped,
}

impl Outcome {
    /// Returns the form that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// A message or the end of a connection.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Number of the entry, counting from 1.
    pub number: u64,
    /// Time in seconds since 1970, by the server's clock.
    pub at: f64,
    /// Message or end.
    pub kind: Kind,
    /// Sender and receiver.
    pub direction: Direction,
    /// Device that it concerns, if known.
    pub device: Option<DeviceId>,
    /// Client that it concerns, if it has an id.
    pub client: Option<ClientId>,
    /// Number of the connection, counting from 1; 0 for forwards, which concern two.
    pub connection: u64,
    /// `register`, `config`, `forward` and so on. For a message of a peer, its own `message_type`; empty if it cannot
    /// be read.
    pub message_type: Cow<'static, str>,
    /// Whole text. For a forward, the message to its receiver; for any other message, the message as it was sent.
    pub text: Text,
    /// Outcome.
    pub outcome: Outcome,
    /// Names of the faults that hit it.
    pub faults: Vec<&'static str>,
    /// Addresses in it that were rewritten (docs/protocol.md 5.5).
    pub rewritten: usize,
}

impl Entry {
    /// Returns the payload of a forward, as JSON text.
    pub fn payload(&self) -> Option<&str> {
        if self.message_type == "forward" { outbound::payload_of(&self.text) } else { None }
    }

    /// Returns the `"type"` of the payload. It is parsed at each call.
    pub fn payload_type(&self) -> Option<String> {
        payload::type_of(self.payload()?)
    }
}

/// Conditions for entries to find. `None` matches any entry.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Message or end.
    pub kind: Option<Kind>,
    /// Sender and receiver.
    pub direction: Option<Direction>,
    /// Device that it concerns.
    pub device: Option<DeviceId>,
    /// Client that it concerns.
    pub client: Option<ClientId>,
    /// `message_type` of the envelope.
    pub message_type: Option<String>,
    /// `"type"` of the payload.
    pub payload_type: Option<String>,
}

impl Filter {
    /// Returns whether an entry meets all conditions.
    pub fn matches(&self, entry: &Entry) -> bool {
        self.kind.is_none_or(|kind| kind == entry.kind)
            && self.direction.is_none_or(|direction| direction == entry.direction)
            && self.device.as_ref().is_none_or(|device| Some(device) == entry.device.as_ref())
            && self.client.is_none_or(|client| Some(client) == entry.client)
            && self.message_type.as_ref().is_none_or(|wanted| *wanted == entry.message_type)
            && self.payload_type.as_ref().is_none_or(|wanted| entry.payload_type().as_ref() == Some(wanted))
    }
}

/// Supplies the time to a journal, and is notified of each entry.
///
/// The journal calls it while locks of a peer are held. Its methods must return soon and must not call back.
pub trait JournalObserver: Send + Sync + 'static {
    /// Returns the time, in seconds since 1970.
    fn now(&self) -> f64;
    /// Notifies that an entry was recorded.
    fn recorded(&self);
}

/// Bounds of a journal. Beyond either one, the oldest entries are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalBounds {
    /// Greatest number of entries.
    pub entries: usize,
    /// Greatest sum of the lengths of their texts, in bytes. The newest entry is kept even if it alone is longer.
    pub bytes: usize,
}

/// A bounded ring of entries.
pub struct Journal {
    observer: Box<dyn JournalObserver>,
    state: Mutex<Ring>,
}

struct Ring {
    bounds: JournalBounds,
    entries: VecDeque<Entry>,
    bytes: usize,
    last_number: u64,
    last_connection: u64,
}

impl Journal {
    /// Creates an empty journal.
    pub fn new(bounds: JournalBounds, observer: Box<dyn JournalObserver>) -> Self {
        let ring = Ring { bounds, entries: VecDeque::new(), bytes: 0, last_number: 0, last_connection: 0 };
        Self { observer, state: Mutex::new(ring) }
    }

    /// Replaces the bounds, and removes the entries beyond them.
    pub fn set_bounds(&self, bounds: JournalBounds) {
        let mut ring = self.state.lock();
        ring.bounds = bounds;
        ring.shrink();
    }

    /// Records an entry and returns its number. The journal sets number and time.
    pub fn record(&self, mut entry: Entry) -> u64 {
        let number = {
            let mut ring = self.state.lock();
            // Under the lock, so that times never decrease from one entry to the next.
            entry.at = self.observer.now();
            ring.last_number += 1;
            entry.number = ring.last_number;
            ring.bytes += entry.text.len();
            ring.entries.push_back(entry);
            ring.shrink();
            ring.last_number
        };
        self.observer.recorded();
        number
    }

    /// Returns a number for a connection, which no other connection of this journal has.
    fn number_connection(&self) -> u64 {
        let mut ring = self.state.lock();
        ring.last_connection += 1;
        ring.last_connection
    }

    /// Sets the outcome of a forward that was recorded earlier. A removed entry is ignored.
    pub fn settle(&self, number: u64, outcome: Outcome) {
        if let Some(entry) = self.state.lock().entry_mut(number) {
            entry.outcome = outcome;
        }
    }

    /// Adds the name of a fault to a forward that was recorded earlier. A removed entry is ignored.
    pub fn add_fault(&self, number: u64, fault: &'static str) {
        if let Some(entry) = self.state.lock().entry_mut(number) {
            entry.faults.push(fault);
        }
    }

    /// Returns the entries that match and come after number `after`, oldest first, at most `limit`.
    pub fn find(&self, filter: &Filter, after: u64, limit: usize) -> Vec<Entry> {
        // Entries are copied first and matched without the lock. A copy shares its text; parsing payload types takes
        // longer.
        let entries: Vec<_> = {
            let ring = self.state.lock();
            let first = ring.entries.partition_point(|entry| entry.number <= after);
            ring.entries.range(first..).cloned().collect()
        };
        entries.into_iter().filter(|entry| filter.matches(entry)).take(limit).collect()
    }

    /// Returns the latest entries of a device after number `after`, oldest first, at most `limit`, and the number of
    /// earlier ones that were left out.
    pub fn latest(&self, device: &DeviceId, after: u64, limit: usize) -> (Vec<Entry>, usize) {
        let ring = self.state.lock();
        let first = ring.entries.partition_point(|entry| entry.number <= after);
        let mut found = ring.entries.range(first..).rev().filter(|entry| entry.device.as_ref() == Some(device));
        let mut latest: Vec<_> = found.by_ref().take(limit).cloned().collect();
        let skipped = found.count();
        latest.reverse();
        (latest, skipped)
    }

    /// Returns the entries of a device among the next `scanned` ones after number `after`, and the number of the last one
    /// of those. `None` if there is none. So a reader of a long journal holds the lock for a short time only.
    pub fn next_of(&self, device: &DeviceId, after: u64, scanned: usize) -> Option<(Vec<Entry>, u64)> {
        let ring = self.state.lock();
        let first = ring.entries.partition_point(|entry| entry.number <= after);
        let end = ring.entries.len().min(first.saturating_add(scanned));
        let last = ring.entries.range(first..end).next_back()?.number;
        let of_device = ring.entries.range(first..end).filter(|entry| entry.device.as_ref() == Some(device));
        Some((of_device.cloned().collect(), last))
    }

    /// Returns the next entries after number `after`, at most `count`. So a reader of a long journal holds the lock for a
    /// short time only.
    pub fn next(&self, after: u64, count: usize) -> Vec<Entry> {
        let ring = self.state.lock();
        let first = ring.entries.partition_point(|entry| entry.number <= after);
        ring.entries.range(first..).take(count).cloned().collect()
    }

    /// Returns the number of the last entry, which is the count of all entries, removed ones included.
    pub fn count(&self) -> u64 {
        self.state.lock().last_number
    }

    /// Returns how many entries the bounds have removed.
    pub fn forgotten(&self) -> u64 {
        let ring = self.state.lock();
        ring.last_number - ring.entries.len() as u64
    }
}

impl Ring {
    fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        let behind = usize::try_from(self.last_number.checked_sub(number)?).ok()?;
        let at = self.entries.len().checked_sub(behind + 1)?;
        self.entries.get_mut(at)
    }

    fn shrink(&mut self) {
        let bounds = self.bounds;
        while self.entries.len() > bounds.entries || (self.bytes > bounds.bytes && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.bytes -= oldest.text.len();
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("bounds", &self.state.lock().bounds).finish_non_exhaustive()
    }
}

/// Records the messages between one peer and the server.
///
/// Forwards are recorded by the relay, since they concern two peers.
#[derive(Debug)]
pub struct PeerJournal {
    journal: std::sync::Arc<Journal>,
    role: Role,
    connection: u64,
    place: Mutex<(Option<DeviceId>, Option<ClientId>)>,
}

impl PeerJournal {
    /// Creates a recorder for a peer of this role.
    pub fn new(journal: std::sync::Arc<Journal>, role: Role) -> Self {
        let connection = journal.number_connection();
        Self { journal, role, connection, place: Mutex::default() }
    }

    /// Sets the device that the peer registers as or connects to.
    pub fn concerns(&self, device: &DeviceId) {
        self.place.lock().0 = Some(device.clone());
    }

    /// Sets the id of the client.
    pub fn is_client(&self, id: ClientId) {
        self.place.lock().1 = Some(id);
    }

    /// Records a message of the peer. `message_type` is its type, or empty if it has none.
    pub fn received(&self, text: &str, message_type: &str) {
        self.write(Direction::from(self.role), Kind::Message, message_type, text.to_owned().into());
    }

    /// Records a message of the server.
    pub fn sent(&self, text: &Text) {
        self.write(Direction::to(self.role), Kind::Message, outbound::type_of(text), text.clone());
    }

    /// Records a message of the server that another server has written. `message_type` is empty if it has none.
    pub fn passed(&self, text: &Text, message_type: &str) {
        self.write(Direction::to(self.role), Kind::Message, message_type, text.clone());
    }

    /// Records that the server ends the connection. `how` is a description for people.
    pub fn ended(&self, how: String) {
        self.write(Direction::to(self.role), Kind::Closed, "", how.into());
    }

    /// Records that the peer has left.
    pub fn left(&self) {
        self.write(Direction::from(self.role), Kind::Closed, "", String::from("left").into());
    }

    fn write(&self, direction: Direction, kind: Kind, message_type: &str, text: Text) {
        let (device, client) = self.place.lock().clone();
        self.journal.record(Entry {
            number: 0,
            at: 0.0,
            kind,
            direction,
            device,
            client,
            connection: self.connection,
            message_type: Cow::Owned(message_type.to_owned()),
            text,
            outcome: Outcome::Passed,
            faults: Vec::new(),
            rewritten: 0,
        });
    }
}
