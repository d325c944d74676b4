//! Rate limits with bursts: token buckets. They read no clock; each call gets the time as an argument.

use std::time::{Duration, Instant};

/// A rate limit: the refill rate and the size of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens added per second.
    pub per_second: u32,
    /// The most tokens that the bucket holds.
    pub burst: u32,
}

/// The tokens of a bucket, whose owner keeps the time.
#[derive(Debug, Clone, Copy)]
pub struct Tokens(f64);

impl Tokens {
    /// Fills a bucket.
    pub fn full(rate: Rate) -> Self {
        Self(f64::from(rate.burst))
    }

    /// Adds the tokens of a time in seconds.
    #[inline]
    pub fn refill(&mut self, seconds: f64, rate: Rate) {
        self.0 = (self.0 + seconds * f64::from(rate.per_second)).min(f64::from(rate.burst));
    }

    /// Takes `amount` tokens. Returns false, and takes none, if the bucket has fewer.
    pub fn take(&mut self, amount: f64) -> bool {
        let enough = self.0 >= amount;
        if enough {
            self.0 -= amount;
        }
        enough
    }

    /// Takes `amount` tokens, however few there are. If they were too few, returns the time after which the bucket has
    /// recovered: it holds the tokens of a hundredth of a second then, so that a peer is not delayed for each message.
    #[inline]
    pub fn borrow(&mut self, amount: f64, rate: Rate) -> Option<Duration> {
        self.0 -= amount;
        if self.0 >= 0.0 {
            return None;
        }
        let per_second = f64::from(rate.per_second);
        let missing = (per_second / 100.0).min(f64::from(rate.burst)) - self.0;
        Some(Duration::try_from_secs_f64(missing / per_second).unwrap_or(Duration::MAX))
    }
}

/// A token bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    tokens: Tokens,
    at: Instant,
}

impl Bucket {
    /// Creates a full bucket.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { tokens: Tokens::full(rate), at: now }
    }

    /// Whether nothing of it is used at this time.
    pub fn is_full(&self, rate: Rate, now: Instant) -> bool {
        self.clone().take(f64::from(rate.burst), rate, now)
    }

    /// Takes `amount` tokens. Returns false, and takes none, if the bucket has fewer.
    pub fn take(&mut self, amount: f64, rate: Rate, now: Instant) -> bool {
        self.tokens.refill(now.saturating_duration_since(self.at).as_secs_f64(), rate);
        self.at = self.at.max(now);
        self.tokens.take(amount)
    }
}
