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
use crate::protocol::Text;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// Stage of a connection to another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client has not got the device info yet.
    Found,
    /// The client has the device info. Messages go both ways.
    Started,
    /// The client has left.
    Left,
    /// The connection has ended, or the device has left.
    Lost,
}

/// The client's end. Dropping it closes the connection.
pub struct Upstream {
    /// Stand-in for the device: in no hub, with the queue to the other node as its outbox.
    device: Arc<Device>,
    share: Arc<Share>,
    stage: Arc<Mutex<Stage>>,
    /// Cleared when the client leaves.
    open: AtomicBool,
}

/// The end of the session that receives the device's messages from the other node.
#[derive(Debug, Clone)]
pub struct Link(Arc<Mutex<Stage>>);

impl Upstream {
    /// Creates the client's end. `device` is a stand-in, whose outbox is the queue to the other node.
    pub fn new(device: Device, link: &Link) -> Self {
        let stage = Arc::clone(&link.0);
        Self { device: Arc::new(device), share: Arc::default(), stage, open: AtomicBool::new(true) }
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
        *self.stage.lock() == Stage::Lost
    }

    /// Lets the messages of the device through. Returns false if the connection has ended.
    pub fn start(&self) -> bool {
        let started = {
            let mut stage = self.stage.lock();
            if *stage == Stage::Found {
                *stage = Stage::Started;
            }
            *stage == Stage::Started
        };
        self.device.outbox.wake_session();
        started
    }

    /// Queues a payload for the other node. Returns the number of messages that are queued now.
    ///
    /// The ledger counts it here and on the node of the device, each for its own part of the way.
    pub fn forward(&self, relay: &Relay, payload: &str, now: Instant) -> usize {
        relay.ledger().count_accepted();
        let text = Text::from(payload.to_owned());
        let queued = self.device.outbox.push_forward_while(text, Passage::Direct, now, &self.open, &self.share);
        // The connection is lost, and the client is being told.
        queued.unwrap_or_else(|_| {
            relay.ledger().count_gone(1);
            0
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.open.store(false, Ordering::Release);
        *self.stage.lock() = Stage::Left;
        self.device.outbox.close(None, End::close(1000, "client left"));
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, stage) = (&self.device.id, *self.stage.lock());
        f.debug_struct("Upstream").field("device", id).field("stage", &stage).finish_non_exhaustive()
    }
}

impl Default for Link {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Stage::Found)))
    }
}

impl Link {
    /// Returns whether messages of the device have to wait.
    pub fn holds_texts(&self) -> bool {
        *self.0.lock() == Stage::Found
    }

    /// Returns whether messages of the device go to the client.
    pub fn is_started(&self) -> bool {
        *self.0.lock() == Stage::Started
    }

    /// Ends the connection. Returns whether the client has to be told: it has the device info, and has not left.
    pub fn lose(&self) -> bool {
        let mut stage = self.0.lock();
        let before = *stage;
        if before != Stage::Left {
            *stage = Stage::Lost;
        }
        before == Stage::Started
    }
}
