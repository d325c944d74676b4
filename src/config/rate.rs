//! Rate limits with bursts: token buckets. They read no clock; each call gets the time as an argument.

use std::time::Instant;

/// A rate limit: the refill rate and the size of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens added per second.
    pub per_second: u32,
    /// The most tokens that the bucket holds.
    pub burst: u32,
}

/// A token bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// Creates a full bucket.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { left: f64::from(rate.burst), at: now }
    }

    /// Whether nothing of it is used at this time.
    pub fn is_full(&self, rate: Rate, now: Instant) -> bool {
        self.clone().take(f64::from(rate.burst), rate, now)
    }

    /// Takes `amount` tokens. Returns false, and takes none, if the bucket has fewer.
    pub fn take(&mut self, amount: f64, rate: Rate, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.left = (self.left + since * f64::from(rate.per_second)).min(f64::from(rate.burst));
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }
}
