//! The connection of a client to its device on another node, as the client's node sees it.
//!
//! The client's session has one end, [`Upstream`], and the session of the connection to the other node has the other,
//! [`Link`]. The outbox between them is to the client what the outbox of a device is: it needs credit there, and is not
//! read without.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::core::hub::Device;
use crate::core::outbox::{End, Passage, Share};
use crate::core::relay::Relay;
use crate::observe::cluster::{ClusterCounts, Direction};
use crate::protocol::Text;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// Stage of a connection to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The client has not got the device info yet.
    Found,
    /// The client has the device info. Messages go both ways.
    Started,
    /// The client has left.
    Left,
    /// The connection has ended, or the device has left.
    Lost,
}

/// The stage that both ends share. Each text reads it, so it takes no lock.
#[derive(Debug)]
struct SharedStage(AtomicUsize);

impl SharedStage {
    fn get(&self) -> Stage {
        Self::of(self.0.load(Ordering::Acquire))
    }

    /// Changes the stage to the one that `next` returns for it, if any. Returns the stage before.
    fn change(&self, next: impl Fn(Stage) -> Option<Stage>) -> Stage {
        let mut before = self.get();
        while let Some(after) = next(before) {
            match self.0.compare_exchange(before as usize, after as usize, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(other) => before = Self::of(other),
            }
        }
        before
    }

    fn of(number: usize) -> Stage {
        [Stage::Found, Stage::Started, Stage::Left].get(number).copied().unwrap_or(Stage::Lost)
    }
}

/// The client's end. Dropping it closes the connection.
pub struct Upstream {
    /// Stand-in for the device: in no hub, with the queue to the other node as its outbox.
    device: Arc<Device>,
    share: Arc<Share>,
    stage: Arc<SharedStage>,
    counts: Arc<ClusterCounts>,
    /// Cleared when the client leaves.
    open: AtomicBool,
}

/// The end of the session that receives the device's messages from the other node.
#[derive(Debug, Clone)]
pub struct Link {
    stage: Arc<SharedStage>,
    counts: Arc<ClusterCounts>,
}

impl Upstream {
    /// Creates the client's end. `device` is a stand-in, whose outbox is the queue to the other node.
    pub fn new(device: Device, link: &Link) -> Self {
        let (stage, counts) = (Arc::clone(&link.stage), Arc::clone(&link.counts));
        Self { device: Arc::new(device), share: Arc::default(), stage, counts, open: AtomicBool::new(true) }
    }

    /// Returns the stand-in for the device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Returns the credit that the client's forwards hold.
    pub fn share(&self) -> &Arc<Share> {
        &self.share
    }

    /// Returns whether the connection has ended, or the device has left.
    pub fn is_lost(&self) -> bool {
        self.stage.get() == Stage::Lost
    }

    /// Lets the messages of the device through. Returns false if the connection has ended.
    pub fn start(&self) -> bool {
        let before = self.stage.change(|stage| (stage == Stage::Found).then_some(Stage::Started));
        let started = matches!(before, Stage::Found | Stage::Started);
        self.device.outbox.wake_session();
        started
    }

    /// Queues a payload for the other node. Returns the number of messages that are queued now.
    ///
    /// The ledger counts it here and on the node of the device, each for its own part of the way.
    pub fn forward(&self, relay: &Relay, payload: &str, now: Instant) -> usize {
        relay.ledger().count_accepted();
        self.counts.count_bytes(Direction::Out, payload.len());
        let text = Text::from(payload.to_owned());
        let queued = self.device.outbox.push_forward_while(text, Passage::Direct, now, &self.open, &self.share);
        // The connection is lost, and the client is being told.
        queued.unwrap_or_else(|_| {
            relay.ledger().count_gone(1);
            self.counts.count_gone(1);
            0
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Release);
        self.stage.change(|_| Some(Stage::Left));
        self.device.outbox.close(None, End::close(1000, "client left"));
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, stage) = (&self.device.id, self.stage.get());
        f.debug_struct("Upstream").field("device", id).field("stage", &stage).finish_non_exhaustive()
    }
}

impl Default for Link {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl Link {
    /// Creates the link of a client that has not got the device info.
    pub fn new(counts: Arc<ClusterCounts>) -> Self {
        Self { stage: Arc::new(SharedStage(AtomicUsize::new(Stage::Found as usize))), counts }
    }

    /// Returns the counters of the node.
    pub fn counts(&self) -> &ClusterCounts {
        &self.counts
    }

    /// Returns whether messages of the device have to wait.
    pub fn holds_texts(&self) -> bool {
        self.stage.get() == Stage::Found
    }

    /// Returns whether messages of the device go to the client.
    pub fn is_started(&self) -> bool {
        self.stage.get() == Stage::Started
    }

    /// Ends the connection, and returns the stage until then: a client in [`Stage::Started`] has to be told.
    pub fn lose(&self) -> Stage {
        self.stage.change(|stage| (stage != Stage::Left).then_some(Stage::Lost))
    }
}
