//! Settings of backpressure: how much may wait for a peer, and when a peer is a slow consumer (docs/protocol.md 2.7).

use std::time::Duration;

use crate::config::bounds::{MAX_COUNT, MAX_KEPT, above_zero, within};
use crate::config::error::ConfigError;
use crate::core::outbox::OutboxBounds;

/// Bounds on messages that wait, and on the time for which they wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backpressure {
    /// Bytes of messages that may wait for one client, and of the server's messages for one device. Each message counts
    /// 128 bytes more than its length. Default 4 MiB: the offers and candidates of a hundred sessions. Above it, the
    /// outbox borrows from `outbox_budget`.
    pub outbox_bytes: usize,
    /// Bytes that all outboxes together may hold above their `outbox_bytes`. Default 256 MiB: a burst for hundreds of
    /// clients, on a machine that runs devices of several GiB. When it is spent, the client with the oldest unsent
    /// message is closed (docs/protocol.md 4.3.13).
    pub outbox_budget: usize,
    /// How long a peer above its `outbox_bytes` may take no byte. Default 1 s; then it is closed (docs/protocol.md
    /// 4.3.12).
    pub borrow_timeout: Duration,
    /// Bytes of clients' forwards that wait for one device, at which its clients are not read any more. Default 1 MiB: a
    /// device that reads empties it in milliseconds.
    pub device_high_water: usize,
    /// Bytes at which these clients are read again. Default 512 KiB: the device never waits for its clients.
    pub device_low_water: usize,
    /// Bytes of one client's forwards that wait for its device, at which the client is not read any more. Default 64 KiB:
    /// the longest message of a WebSocket device, and the wait of other clients behind this one.
    pub client_window_bytes: usize,
    /// Number of these forwards. Default 64: a session has a few dozen.
    pub client_window_messages: usize,
    /// Bytes of texts of one peer that wait for a hook. At this size the peer is not read any more. Each text counts 128
    /// bytes more than its length. Default 1 MiB.
    pub held_bytes: usize,
    /// Age of the oldest message that waits for a peer. Default 60 s; then the peer is closed (docs/protocol.md 4.3.11).
    /// WebRTC gives up earlier.
    pub max_message_age: Duration,
    /// Bytes of forwards that faults hold back. Further ones are dropped. Default 16 MiB, as for a journal.
    pub held_by_faults_bytes: usize,
}

/// The defaults.
pub(super) const DEFAULT: Backpressure = Backpressure {
    outbox_bytes: 4 * 1024 * 1024,
    outbox_budget: 256 * 1024 * 1024,
    borrow_timeout: Duration::from_secs(1),
    device_high_water: 1024 * 1024,
    device_low_water: 512 * 1024,
    client_window_bytes: 64 * 1024,
    client_window_messages: 64,
    held_bytes: 1024 * 1024,
    max_message_age: Duration::from_secs(60),
    held_by_faults_bytes: 16 * 1024 * 1024,
};

impl Default for Backpressure {
    fn default() -> Self {
        DEFAULT
    }
}

impl Backpressure {
    /// The bounds that outboxes use.
    pub fn outbox_bounds(&self) -> OutboxBounds {
        OutboxBounds {
            bytes: self.outbox_bytes,
            budget: self.outbox_budget,
            high_water: self.device_high_water,
            low_water: self.device_low_water,
            window_bytes: self.client_window_bytes,
            window_messages: self.client_window_messages,
        }
    }

    /// Checks the values. An outbox has room for the largest message, so that a message alone never makes a peer a slow
    /// consumer.
    pub(super) fn validate(&self, max_message_size: usize) -> Result<(), ConfigError> {
        for (setting, value, least, most) in [
            ("limits.outbox_bytes", self.outbox_bytes, 128, MAX_KEPT),
            ("limits.outbox_budget", self.outbox_budget, 0, MAX_KEPT),
            ("limits.device_high_water", self.device_high_water, 1, MAX_KEPT),
            ("limits.device_low_water", self.device_low_water, 0, MAX_KEPT),
            ("limits.client_window_bytes", self.client_window_bytes, 1, MAX_KEPT),
            ("limits.client_window_messages", self.client_window_messages, 1, MAX_COUNT),
            ("limits.held_bytes", self.held_bytes, 1, MAX_KEPT),
            ("limits.held_by_faults_bytes", self.held_by_faults_bytes, 1, MAX_KEPT),
        ] {
            within(setting, value, least, most)?;
        }
        if self.outbox_bytes < max_message_size {
            let why =
                format!("must be at least max_message_size, which is {max_message_size}, got {}", self.outbox_bytes);
            return Err(ConfigError::new("limits.outbox_bytes", why));
        }
        if self.device_low_water > self.device_high_water {
            let (low, high) = (self.device_low_water, self.device_high_water);
            let why = format!("must be at most device_high_water, which is {high}, got {low}");
            return Err(ConfigError::new("limits.device_low_water", why));
        }
        above_zero("limits.borrow_timeout", Some(self.borrow_timeout))?;
        above_zero("limits.max_message_age", Some(self.max_message_age))
    }
}
