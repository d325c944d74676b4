//! What one peer may say, and when. Sans-I/O: synchronous, no clock (time comes in as an argument), no hook.
//!
//! An edge gives a session the texts of its peer; the session speaks through outboxes. When it needs what only the
//! outside can give, [`Step::Ask`] returns the [`Question`]; the edge finds out, however long that takes, and comes
//! back with the [`Answer`]. As long as [`Session::holds_texts`] says so, the edge keeps further texts back. When a session is over its outbox is
//! closed; the edge writes what is left, and calls [`Session::leave`].

mod client;
mod control;
mod device;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use client::ClientSession;
pub use control::ControlSession;
pub use device::DeviceSession;

use crate::core::hub::{Device, Hub};
use crate::core::outbox::Outbox;
use crate::core::peer::Peer;
use crate::core::preregistration::PreRegistrations;
use crate::core::relay::Relay;
use crate::observe::incidents::{Incident, Incidents};
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text};

/// What a session needs to go on.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Nothing: feed it the next text.
    Done,
    /// Nothing; the peer was told an error, and stays.
    Refused,
    /// Nothing; the peer stays, and was not told this error, since it is told none (docs/protocol.md 4).
    Withheld(Refusal),
    /// An answer.
    Ask(Question),
}

/// A question that only the outside can answer.
#[derive(Debug)]
pub enum Question {
    /// The `config` message for this peer.
    Config {
        /// The device it registers as, or connects to.
        device_id: DeviceId,
    },
    /// The `device_info` message of this device, as this client may see it.
    DeviceInfo(Arc<Device>),
    /// Whether this device, whose id somebody else wants to register, answers a ping.
    Alive(Arc<Device>),
}

/// The answer to a [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Config`]: the message, and for how long it is good, if not for ever.
    Config(Text, Option<Duration>),
    /// To [`Question::DeviceInfo`].
    DeviceInfo(Text),
    /// To [`Question::Alive`].
    Alive {
        /// The device that was asked about.
        holder: Arc<Device>,
        /// Whether it answered.
        alive: bool,
    },
    /// To any: the peer is refused.
    Refused(Refusal),
}

/// What happens when an id is registered that is held by another live connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    /// The newcomer is refused, if the holder answers a ping.
    #[default]
    Reject,
    /// The newcomer wins at once.
    Replace,
}

/// The settings a session goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How long a peer may take to register or connect; `None` is for ever.
    pub first_message_timeout: Option<Duration>,
    /// How long a client may wait for its device; zero refuses at once, `None` is for ever.
    pub device_wait_timeout: Option<Duration>,
    /// Who gets an id that two want.
    pub on_duplicate: OnDuplicate,
    /// Devices at a time.
    pub max_devices: usize,
    /// The longest device id, in bytes.
    pub max_device_id: usize,
    /// Clients of one device at a time.
    pub max_clients_per_device: usize,
}

/// The house a session lives in.
#[derive(Clone)]
pub struct Context {
    /// Who else is there.
    pub hub: Arc<Hub>,
    /// Where what should not happen is counted.
    pub incidents: Arc<Incidents>,
    /// The way that forwards take.
    pub relay: Arc<Relay>,
    /// Who is expected.
    pub preregistrations: Arc<PreRegistrations>,
    /// What to go by.
    pub rules: Arc<Rules>,
    /// Whom it speaks to.
    pub peer: Arc<Peer>,
    /// Where it speaks.
    pub outbox: Arc<Outbox>,
}

impl Context {
    /// Says no to the peer, and counts it.
    fn refuse(&self, refusal: &Refusal) {
        if let Some(incident) = Incident::of(refusal) {
            self.incidents.count(incident);
        }
        self.outbox.refuse(refusal);
    }

    /// Writes down what the peer said, where there is a journal. `device` is what it says to be, or asks for.
    fn heard(&self, text: &str, message_type: &str, device: Option<&DeviceId>) {
        let Some(peer_journal) = self.outbox.peer_journal() else { return };
        if let Some(id) = device {
            peer_journal.concerns(id);
        }
        peer_journal.heard(text, message_type);
    }
}

/// What an edge needs to know of a session, whichever endpoint it belongs to.
pub trait Session: Send {
    /// The peer has sent this text.
    fn on_text(&mut self, text: &str, now: Instant) -> Step;

    /// The question has been answered.
    fn on_answer(&mut self, answer: Answer, now: Instant) -> Step;

    /// Whether texts have to wait for the answer to the question that was asked. Not so for a device whose config is
    /// renewed: a slow hook does not delay what is up and running.
    fn holds_texts(&self) -> bool;

    /// The outbox said [`crate::core::outbox::Outgoing::Recheck`], or the deadline has passed.
    fn on_recheck(&mut self, now: Instant) -> Step;

    /// When to call [`Session::on_recheck`] at the latest.
    fn deadline(&self) -> Option<Instant>;

    /// The connection is over. Idempotent; dropping a session does the same.
    fn leave(&mut self);

    /// Sends the peer away: with an error, and a close.
    fn disconnect(&mut self, refusal: &Refusal);

    /// Where the session speaks.
    fn outbox(&self) -> &Outbox;

    /// The peer has sent a binary message.
    fn on_binary(&mut self) {
        self.disconnect(&Refusal::Binary);
    }

    /// Whether the peer has registered, or connected.
    fn is_introduced(&self) -> bool;
}

/// `now + timeout`, where there is one.
fn deadline_after(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| now.checked_add(timeout))
}
