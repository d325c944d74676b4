//! Rate limits of one peer: messages, bytes, errors and pings. Exceeding one is a refusal.

use std::time::Instant;

use crate::config::Limits;
use crate::config::rate::Bucket;
use crate::protocol::refusal::Refusal;

/// An input that counts against a limit.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    /// A message or a pong.
    Message,
    /// Bytes as they came over the network.
    Bytes(u32),
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

    /// Takes the input from its bucket.
    ///
    /// # Errors
    /// [`Refusal::TooFast`] if the bucket is empty.
    pub(super) fn spend(&mut self, limits: &Limits, sent: Sent, now: Instant) -> Result<(), Refusal> {
        let (bucket, rate, amount, what) = match sent {
            Sent::Message => (&mut self.messages, limits.messages, 1, "messages"),
            Sent::Bytes(count) => (&mut self.bytes, limits.bytes, count, "bytes"),
            Sent::Error => (&mut self.errors, limits.errors, 1, "errors"),
            Sent::Ping => (&mut self.pings, limits.pings, 1, "pings"),
        };
        if bucket.take(f64::from(amount), rate, now) {
            return Ok(());
        }
        Err(Refusal::TooFast { what, per_second: rate.per_second })
    }
}
