//! Rate limits of one peer: messages, bytes, errors and pings.
//!
//! Messages and bytes above their rate delay the next read. Errors and pings above theirs are a refusal, since they
//! cannot be delayed.

use std::time::Instant;

use crate::config::Limits;
use crate::config::rate::Bucket;
use crate::protocol::refusal::Refusal;

/// An input whose rate is limited by a delay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    /// A message or a pong.
    Message,
    /// Bytes as they came over the network.
    Bytes(u32),
}

/// An input whose rate is limited by a refusal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Strict {
    /// A message that was answered with an error.
    Error,
    /// A ping.
    Ping,
}

/// The token buckets of one peer.
pub(super) struct Throttle {
    /// Messages and pongs.
    messages: Bucket,
    /// Bytes from the network.
    bytes: Bucket,
    /// Errors that the peer caused.
    errors: Bucket,
    /// Pings.
    pings: Bucket,
}

impl Throttle {
    /// Creates full buckets.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            messages: Bucket::full(limits.messages, now),
            bytes: Bucket::full(limits.bytes, now),
            errors: Bucket::full(limits.errors, now),
            pings: Bucket::full(limits.pings, now),
        }
    }

    /// Takes a message or bytes from their bucket. Returns the time before which the peer is not read, if they were too
    /// many.
    pub(super) fn delay(&mut self, limits: &Limits, sent: Sent, now: Instant) -> Option<Instant> {
        match sent {
            Sent::Message => self.messages.borrow(1.0, limits.messages, now),
            Sent::Bytes(count) => self.bytes.borrow(f64::from(count), limits.bytes, now),
        }
    }

    /// Takes an error or a ping from its bucket.
    ///
    /// # Errors
    /// [`Refusal::TooFast`] if the bucket is empty.
    pub(super) fn spend(&mut self, limits: &Limits, strict: Strict, now: Instant) -> Result<(), Refusal> {
        let (bucket, rate, what) = match strict {
            Strict::Error => (&mut self.errors, limits.errors, "errors"),
            Strict::Ping => (&mut self.pings, limits.pings, "pings"),
        };
        if bucket.take(1.0, rate, now) {
            return Ok(());
        }
        Err(Refusal::TooFast { what, per_second: rate.per_second })
    }
}
