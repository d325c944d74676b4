//! Rate limits of one peer: messages, bytes, errors and pings.
//!
//! Messages and bytes above their rate delay the next read. Errors and pings above theirs are a refusal, since they
//! cannot be delayed.

use std::time::Instant;

use crate::config::Limits;
use crate::config::rate::Tokens;
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
    /// The time of the last refill.
    at: Instant,
    /// Messages and pongs.
    messages: Tokens,
    /// Bytes from the network.
    bytes: Tokens,
    /// Errors that the peer caused.
    errors: Tokens,
    /// Pings.
    pings: Tokens,
}

impl Throttle {
    /// Creates full buckets.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            at: now,
            messages: Tokens::full(limits.messages),
            bytes: Tokens::full(limits.bytes),
            errors: Tokens::full(limits.errors),
            pings: Tokens::full(limits.pings),
        }
    }

    /// Refills all buckets. In a burst, many inputs have the same time.
    #[inline]
    fn refill(&mut self, limits: &Limits, now: Instant) {
        if now <= self.at {
            return;
        }
        let seconds = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.messages.refill(seconds, limits.messages);
        self.bytes.refill(seconds, limits.bytes);
        self.errors.refill(seconds, limits.errors);
        self.pings.refill(seconds, limits.pings);
    }

    /// Takes a message or bytes from their bucket. Returns the time before which the peer is not read, if they were too
    /// many.
    #[inline]
    pub(super) fn delay(&mut self, limits: &Limits, sent: Sent, now: Instant) -> Option<Instant> {
        self.refill(limits, now);
        let delay = match sent {
            Sent::Message => self.messages.borrow(1.0, limits.messages),
            Sent::Bytes(count) => self.bytes.borrow(f64::from(count), limits.bytes),
        };
        now.checked_add(delay?)
    }

    /// Takes an error or a ping from its bucket.
    ///
    /// # Errors
    /// [`Refusal::TooFast`] if the bucket is empty.
    pub(super) fn spend(&mut self, limits: &Limits, strict: Strict, now: Instant) -> Result<(), Refusal> {
        self.refill(limits, now);
        let (tokens, rate, what) = match strict {
            Strict::Error => (&mut self.errors, limits.errors, "errors"),
            Strict::Ping => (&mut self.pings, limits.pings, "pings"),
        };
        if tokens.take(1.0) { Ok(()) } else { Err(Refusal::TooFast { what, per_second: rate.per_second }) }
    }
}
