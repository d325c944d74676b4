//! What one peer may send: messages, bytes, errors it causes, pings. Beyond it, a refusal.

use std::time::Instant;

use crate::config::Limits;
use crate::config::rate::Bucket;
use crate::protocol::refusal::Refusal;

/// Something a peer has sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sent {
    Message,
    /// So many, as they came over the network.
    Bytes(u32),
    /// A message that was answered with an error.
    Error,
    /// A ping or a pong.
    Ping,
}

pub(super) struct Throttle {
    messages: Bucket,
    bytes: Bucket,
    errors: Bucket,
    pings: Bucket,
}

impl Throttle {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            messages: Bucket::full(limits.messages, now),
            bytes: Bucket::full(limits.bytes, now),
            errors: Bucket::full(limits.errors, now),
            pings: Bucket::full(limits.pings, now),
        }
    }

    /// What was sent counts.
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
