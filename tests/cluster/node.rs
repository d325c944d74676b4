//! A node of the world: its membership, and sessions that stand for those of real devices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use cuttlefish_signaling::core::cluster::claim::{Outcome, Probe};
use cuttlefish_signaling::core::cluster::registry::{NodeRecord, Timing, Wanted};
use cuttlefish_signaling::core::cluster::{Incarnation, Membership, Registration};
use cuttlefish_signaling::protocol::DeviceId;

/// A process of a node.
pub(crate) struct Node {
    pub(crate) membership: Membership,
    pub(crate) incarnation: Incarnation,
    pub(crate) sessions: BTreeMap<Registration, Session>,
    /// Number of the present connection to the engine, if there is one.
    pub(crate) connection: Option<u64>,
    /// Whether the process is stopped.
    pub(crate) paused: bool,
    last_registration: u64,
}

/// The session of a device.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) id: DeviceId,
    /// Whether the device answers pings. The connection of one that does not is half-open.
    pub(crate) alive: bool,
    pub(crate) state: SessionState,
    /// Set when a fault has touched the node of this session: then others may take its device for gone.
    pub(crate) disturbed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionState {
    Claiming,
    Granted,
    Unclaimed,
}

impl Node {
    pub(crate) fn new(name: usize, start: u64, timing: &Timing, hold: bool, now: Instant) -> Self {
        let incarnation = Incarnation::new(&format!("node-{name}"), start).unwrap();
        let record = NodeRecord { incarnation: incarnation.clone(), details: Arc::from("{}") };
        Self {
            membership: Membership::new(record, timing.clone(), hold, start, now),
            incarnation,
            sessions: BTreeMap::new(),
            connection: None,
            paused: false,
            last_registration: 0,
        }
    }

    /// A device connects and registers.
    pub(crate) fn register(&mut self, id: &DeviceId, replaces: bool, disturbed: bool, now: Instant) {
        self.last_registration += 1;
        let registration = Registration::new(self.incarnation.clone(), self.last_registration);
        let session = Session { id: id.clone(), alive: true, state: SessionState::Claiming, disturbed };
        self.sessions.insert(registration.clone(), session);
        let wanted = Wanted { id: id.clone(), registration, details: Arc::from("{}") };
        self.membership.claim(wanted, replaces, now);
    }

    /// A session ends, by its device or because it was refused.
    pub(crate) fn leave(&mut self, registration: &Registration, now: Instant) {
        if let Some(session) = self.sessions.remove(registration) {
            self.membership.release(&session.id, registration, now);
        }
    }

    pub(crate) fn tell(&mut self, registration: &Registration, outcome: Outcome, now: Instant) {
        let Some(session) = self.sessions.get_mut(registration) else { return };
        match outcome {
            Outcome::Granted => session.state = SessionState::Granted,
            Outcome::Unclaimed => {
                session.state = SessionState::Unclaimed;
                // Until it is granted, another may hold the id.
                session.disturbed = true;
            }
            Outcome::Refused | Outcome::Unavailable => return self.leave(registration, now),
        }
        // The engine has decided: what the node still has under this id is replaced.
        let id = session.id.clone();
        let replaced = |(other, session): (&Registration, &Session)| {
            let registered = session.state != SessionState::Claiming;
            (other != registration && session.id == id && registered).then(|| other.clone())
        };
        for other in self.sessions.iter().filter_map(replaced).collect::<Vec<_>>() {
            self.leave(&other, now);
        }
    }

    /// Answers whether a registration of this node is alive.
    pub(crate) fn probe(&self, holder: &Registration) -> Probe {
        match self.sessions.get(holder) {
            Some(session) if session.alive => Probe::Alive,
            _ => Probe::Gone,
        }
    }

    /// Returns the registered devices.
    pub(crate) fn registered(&self) -> impl Iterator<Item = (&DeviceId, &Registration, &Session)> {
        let sessions = self.sessions.iter().filter(|(_, session)| session.state != SessionState::Claiming);
        sessions.map(|(registration, session)| (&session.id, registration, session))
    }
}
