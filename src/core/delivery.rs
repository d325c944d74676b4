//! The way of a forward to its receiver, after the faults have decided about it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use crate::core::hub::{Client, Device, Forwarded};
use crate::core::lane::{Content, Lane};
use crate::core::outbox::{End, Passage};
use crate::core::peer::Role;
use crate::observe::faults::Ending;
use crate::protocol::Text;

/// Data to deliver a forward.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) way: Way,
    /// Number of its journal entry, once it is recorded.
    pub(super) entry: Arc<OnceLock<u64>>,
}

/// Way of a forward to its receiver.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// Between a device and a client of this server.
    Outbox { device: Arc<Device>, client: Arc<Client> },
    /// Between a peer and another server.
    Lane {
        lane: Arc<Lane>,
        /// Frames in which it came.
        frames: Bytes,
        /// Bytes of its text.
        length: usize,
    },
}

impl Way {
    /// Returns the way between a device and a client of this server.
    pub(super) fn between(device: &Arc<Device>, client: &Arc<Client>) -> Self {
        Self::Outbox { device: Arc::clone(device), client: Arc::clone(client) }
    }

    /// Queues the forward for its receiver.
    pub(super) fn push(&self, to: Role, text: &Text, passage: Passage, now: Instant) -> Forwarded {
        match self {
            Self::Outbox { device, client } if to == Role::Device => {
                device.push_to_device(client, text.clone(), passage, now)
            }
            Self::Outbox { device, client } => device.push_to_client(client, text.clone(), passage, now),
            // A fault can only shorten a text. All others go on in the frames in which they came.
            Self::Lane { lane, frames, length } => {
                let content = if text.len() == *length { frames.clone().into() } else { Content::Text(text.clone()) };
                lane.push_forward(content, passage != Passage::Copy)
            }
        }
    }

    /// Ends the connection of the receiver.
    pub(super) fn end(&self, to: Role, ending: Ending) {
        let end = match ending {
            Ending::Close(code) => End::close(code, "fault"),
            Ending::Reset => End::Reset,
        };
        match self {
            Self::Outbox { device, .. } if to == Role::Device => device.outbox.close(None, end),
            Self::Outbox { client, .. } => client.outbox.close(None, end),
            Self::Lane { lane, .. } => lane.end(end),
        }
    }
}
