//! Sessions: the rules for the messages of one peer (docs/protocol.md 4). Sans-I/O: synchronous, no clock, no hooks.
//!
//! A session gets the texts of its peer from the server layer, with the time as an argument. It answers through
//! outboxes.
//!
//! Where it needs something from outside, such as ICE servers or a hook, it returns [`Step::Ask`] with a [`Question`].
//! The caller gets the [`Answer`], however long that takes, and passes it to [`Session::on_answer`]. While
//! [`Session::holds_texts`] is true, the caller holds further texts back.
//!
//! When a session is over, its outbox is closed. The caller writes the queued messages and calls [`Session::leave`].

mod client;
mod control;
mod device;
mod upstream;

use std::fmt;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

pub use client::ClientSession;
pub use control::ControlSession;
pub use device::DeviceSession;
pub use upstream::{NOT_HERE, OnOpened, Opened, UpstreamSession};

use crate::core::cluster::registry::{Expectation, Expected};
use crate::core::hub::{Device, Hub};
use crate::core::outbox::{End, Outbox};
use crate::core::peer::Peer;
use crate::core::preregistration::{DeviceMetadata, PreRegistrations};
use crate::core::relay::Relay;
use crate::core::upstream::Upstream;
use crate::observe::incidents::{Incident, Incidents};
use crate::observe::timings::Timings;
use crate::protocol::candidates::AddressRules;
use crate::protocol::refusal::Refusal;
use crate::protocol::{DeviceId, Text};

/// Result of an event in a session.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Continue with the next text. The text has changed no deadline of the session.
    Done,
    /// The peer got an error, and the connection stays open. Continue with the next text.
    Refused,
    /// The connection stays open, and the peer got no error, since it is a Cuttlefish device (docs/protocol.md 4.1.4).
    ///
    /// The caller logs and counts the refusal, then continues with the next text.
    Withheld(Refusal),
    /// The session needs the answer to this question.
    Ask(Question),
}

/// Question that a session cannot answer by itself.
#[derive(Debug)]
pub enum Question {
    /// The `config` message for this peer.
    Config {
        /// Device id that it registers as, or connects to.
        device_id: DeviceId,
    },
    /// The `device_info` message of this device, as this client may see it.
    DeviceInfo(Arc<Device>),
    /// Whether this device answers a ping. Another connection wants to register its id (docs/protocol.md 4.1.13).
    Alive(Arc<Device>),
    /// Whether this device may have its id in the cluster.
    Claim(Arc<Device>),
    /// Whether the devices that a control connection announces may be expected in the cluster.
    Announce(Vec<Expected>),
    /// The node of a device that is not on this one, for this client.
    Locate {
        /// Id of the device.
        id: DeviceId,
        /// Whether the client waits no longer: the registry itself has to be asked.
        last: bool,
    },
}

/// Answer to a [`Question`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Question::Config`]: the message, and the time for which it is valid. `None` is forever.
    Config(Text, Option<Duration>),
    /// To [`Question::DeviceInfo`]: the message.
    DeviceInfo(Text),
    /// To [`Question::Alive`].
    Alive {
        /// Device that was probed.
        holder: Arc<Device>,
        /// Whether it answered.
        alive: bool,
    },
    /// To [`Question::Claim`]: the device has its id as long as this guard is kept.
    Claimed(ClaimGuard),
    /// To [`Question::Announce`]: the outcomes, in order.
    Announced(Vec<Expectation>),
    /// To [`Question::Locate`]: the connection to the device on another node.
    Away(Box<Upstream>),
    /// To [`Question::Locate`]: no other node has the device.
    Nowhere,
    /// To [`Question::Locate`]: the node of the device has refused the client, which gets the same end.
    Ended {
        /// Error message.
        last: Option<Text>,
        /// End of the connection.
        end: End,
    },
    /// To any question: the peer is refused.
    Refused(Refusal),
}

/// The claim of a device id in the cluster. Dropping it gives the id up.
pub struct ClaimGuard {
    /// Metadata of the device, if another node has announced it.
    pub place: Option<Arc<DeviceMetadata>>,
    _release: Box<dyn Send>,
}

impl ClaimGuard {
    /// Creates a guard, which drops `release` when it is dropped.
    pub fn new(release: impl Send + 'static) -> Self {
        Self::announced(release, None)
    }

    /// Creates the guard of a device that another node may have announced.
    pub fn announced(release: impl Send + 'static, place: Option<Arc<DeviceMetadata>>) -> Self {
        Self { place, _release: Box::new(release) }
    }
}

impl fmt::Debug for ClaimGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimGuard").finish_non_exhaustive()
    }
}

/// Treatment of a `register` whose id another live connection holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    /// The newcomer is refused, if the holder answers a ping (docs/protocol.md 4.1.12 and 4.1.13).
    #[default]
    Reject,
    /// The newcomer replaces the holder at once (docs/protocol.md 4.1.14).
    Replace,
}

/// Settings of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Time for the first message (docs/protocol.md 4.3.8); `None` is forever.
    pub first_message_timeout: Option<Duration>,
    /// Time that a client waits for its device (docs/protocol.md 1.19). Zero refuses at once, `None` is forever.
    pub device_wait_timeout: Option<Duration>,
    /// Treatment of an id that is registered already.
    pub on_duplicate: OnDuplicate,
    /// Greatest number of devices.
    pub max_devices: usize,
    /// Longest device id, in bytes (docs/protocol.md 4.1.10).
    pub max_device_id: usize,
    /// Greatest number of clients of one device.
    pub max_clients_per_device: usize,
    /// Whether a device has one client at a time, at most (docs/protocol.md 4.2.13).
    pub one_client_per_device: bool,
    /// Time that a peer may take nothing of what is written to it (docs/protocol.md 4.3.10).
    pub write_timeout: Duration,
    /// Time to flush the outbox and complete the closing handshake.
    pub close_timeout: Duration,
    /// Time for the peer's close frame when the server stops.
    pub goodbye_timeout: Duration,
    /// Silence after which a peer is pinged; `None` sends no pings.
    pub ping_interval: Option<Duration>,
    /// Time for the answer to a ping.
    pub pong_timeout: Duration,
    /// Time that a peer whose outbox borrows may take nothing (docs/protocol.md 4.3.12).
    pub borrow_timeout: Duration,
    /// Greatest age of a message that waits for the peer (docs/protocol.md 4.3.11).
    pub max_message_age: Duration,
    /// Bytes of texts that wait for the answer to a question. At this size, the peer is not read.
    pub max_held_bytes: usize,
    /// Whether the server is a node of a cluster: ids are claimed, and devices may be on other nodes.
    pub is_clustered: bool,
    /// Addresses at which clients reach the devices, where those see others (docs/protocol.md 5.5); `None` without rules.
    pub advertise: Option<Arc<AddressRules>>,
}

impl Rules {
    /// Returns the rules of a connection to another node, for a client.
    ///
    /// The other node is not pinged there, and may take nothing for any time: it does not read while the device has no
    /// room. Whether it is alive is found out elsewhere.
    #[must_use]
    pub fn of_upstream(&self) -> Self {
        let never = Duration::MAX;
        Self {
            first_message_timeout: None,
            ping_interval: None,
            write_timeout: never,
            borrow_timeout: never,
            max_message_age: never,
            ..self.clone()
        }
    }
}

/// Shared state and peer of a session.
#[derive(Clone)]
pub struct Context {
    /// Registry of devices and connections.
    pub hub: Arc<Hub>,
    /// Counters of incidents.
    pub incidents: Arc<Incidents>,
    /// Histograms of times.
    pub timings: Arc<Timings>,
    /// Path of all forwards.
    pub relay: Arc<Relay>,
    /// Devices that were announced over the control socket.
    pub preregistrations: Arc<PreRegistrations>,
    /// Settings.
    pub rules: Arc<Rules>,
    /// Facts about the peer.
    pub peer: Arc<Peer>,
    /// Queue of messages to the peer.
    pub outbox: Arc<Outbox>,
}

impl Context {
    /// Refuses a message of the peer, and counts the incident.
    fn refuse(&self, refusal: &Refusal) {
        self.count(refusal);
        self.outbox.refuse(refusal);
    }

    /// Counts and records a refusal that the answer to a request carries.
    fn record_refusal(&self, refusal: &Refusal) {
        self.count(refusal);
        if let Some(peer_journal) = self.outbox.peer_journal() {
            peer_journal.sent(&refusal.message());
        }
    }

    fn count(&self, refusal: &Refusal) {
        if let Some(incident) = Incident::of(refusal) {
            self.incidents.count(incident);
        }
    }

    /// Records a message of the peer, if there is a journal. `device` is the id that it registers as, or connects to.
    fn record_received(&self, text: &str, message_type: &str, device: Option<&DeviceId>) {
        let Some(peer_journal) = self.outbox.peer_journal() else { return };
        if let Some(id) = device {
            peer_journal.concerns(id);
        }
        peer_journal.received(text, message_type);
    }
}

/// Interface of a session to its caller in the server layer.
pub trait Session: Send {
    /// Handles a text of the peer.
    fn on_text(&mut self, text: &str, now: Instant) -> Step;

    /// Handles the answer to the last question.
    fn on_answer(&mut self, answer: Answer, now: Instant) -> Step;

    /// Returns whether further texts have to wait for the answer to a question.
    ///
    /// A device whose config is renewed does not wait, so that a slow hook does not delay its forwards.
    fn holds_texts(&self) -> bool;

    /// Polls whether the session may take one more text: whether the receiver of its forwards has room.
    ///
    /// If not, the task is woken when that may have changed. A device never waits (docs/protocol.md 2.7).
    fn poll_credit(&mut self, _cx: &TaskContext<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    /// Returns the number of messages that the receiver of the last forward had not taken then.
    fn backlog(&self) -> usize {
        0
    }

    /// Rechecks the state that the session waits for.
    ///
    /// The caller calls it on [`crate::core::outbox::Outgoing::Recheck`] and when the deadline has passed.
    fn on_recheck(&mut self, now: Instant) -> Step;

    /// Returns the latest time for the next [`Session::on_recheck`].
    fn deadline(&self) -> Option<Instant>;

    /// Ends the session. Further calls have no effect. Dropping a session calls it.
    fn leave(&mut self);

    /// Refuses the peer, with a refusal that closes the connection.
    fn disconnect(&mut self, refusal: &Refusal);

    /// Returns the shared state and the peer.
    fn context(&self) -> &Context;

    /// Handles a binary message of the peer: closes the connection (docs/protocol.md 4.3.5).
    fn on_binary(&mut self) {
        self.disconnect(&Refusal::Binary);
    }

    /// Notes that forwards were written to the peer. Only the session of a connection to another node counts them.
    fn on_written(&self, _forwards: u64) {}

    /// Notes that the connection has ended with forwards that were not written.
    fn on_gone(&self, _forwards: u64) {}

    /// Notes the code and the reason of the peer's close frame, before [`Session::leave`]. Only the session of a connection
    /// to another node passes them on.
    fn on_close_frame(&mut self, _code: u16, _reason: &str) {}

    /// Returns the device that the peer registers as, or wants to use, once it has said so, also after its end. One with an
    /// invalid id has none.
    fn device_id(&self) -> Option<&DeviceId> {
        None
    }

    /// Returns whether the peer has sent `register` or `connect`. A control connection needs neither.
    fn is_introduced(&self) -> bool;
}

/// Returns `now + timeout`, if there is a timeout.
fn deadline_after(now: Instant, timeout: Option<Duration>) -> Option<Instant> {
    timeout.and_then(|timeout| now.checked_add(timeout))
}
