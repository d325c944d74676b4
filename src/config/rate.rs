//! Rates with bursts: token buckets. Layer 1: knows no clock, time comes in as an argument.

use std::time::Instant;

/// So many a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// A second.
    pub per_second: u32,
    /// At once, after some rest.
    pub burst: u32,
}

/// What is left of a rate.
#[derive(Debug, Clone)]
pub struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: Rate, now: Instant) -> Self {
        Self { left: f64::from(rate.burst), at: now }
    }

    /// Takes that many; false where there are not enough left, which takes nothing.
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
