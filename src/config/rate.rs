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
        self.refill(rate, now);
        let enough = self.left >= amount;
        if enough {
            self.left -= amount;
        }
        enough
    }

    /// Takes `amount` tokens, however few there are. If they were too few, returns the time at which the bucket has
    /// recovered: it holds the tokens of a hundredth of a second then, so that a peer is not delayed for each message.
    pub fn borrow(&mut self, amount: f64, rate: Rate, now: Instant) -> Option<Instant> {
        self.refill(rate, now);
        self.left -= amount;
        if self.left >= 0.0 {
            return None;
        }
        let per_second = f64::from(rate.per_second);
        let missing = (per_second / 100.0).min(f64::from(rate.burst)) - self.left;
        now.checked_add(Duration::try_from_secs_f64(missing / per_second).unwrap_or(Duration::MAX))
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        // In a burst, many texts have the same time.
        if now <= self.at {
            return;
        }
        let since = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + since * f64::from(rate.per_second)).min(f64::from(rate.burst));
    }
}
