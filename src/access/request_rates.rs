//! The rates of HTTP requests: of one connection, and of one address.
//!
//! Loopback is exempt from the rate of an address, since all local peers share it. This module reads no clock.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::HttpLimits;
use crate::config::rate::{Bucket, Rate};
use crate::core::address::counted;

/// The number of addresses from which on full buckets are looked for. A full one is the same as none.
const FEW: usize = 1024;

/// The token bucket of one connection.
pub struct ConnectionRequests(Mutex<Bucket>);

impl ConnectionRequests {
    /// Creates a full bucket.
    pub fn new(limits: &HttpLimits, now: Instant) -> Self {
        Self(Mutex::new(Bucket::full(limits.requests, now)))
    }

    /// Takes one request. Returns the rate if the bucket is empty.
    pub fn take(&self, limits: &HttpLimits, now: Instant) -> Option<Rate> {
        (!self.0.lock().take(1.0, limits.requests, now)).then_some(limits.requests)
    }
}

/// The token buckets of addresses.
#[derive(Default)]
pub struct RequestRates(Mutex<Buckets>);

#[derive(Default)]
struct Buckets {
    by_address: HashMap<IpAddr, Bucket>,
    /// The number of buckets at which full ones are removed.
    most: usize,
}

impl RequestRates {
    /// Takes one request of an address. Returns the rate if its bucket is empty.
    pub fn take(&self, address: IpAddr, limits: &HttpLimits, now: Instant) -> Option<Rate> {
        let (counted_as, rate) = (counted(address), limits.address_requests);
        if counted_as.is_loopback() {
            return None;
        }
        let mut buckets = self.0.lock();
        if buckets.by_address.len() >= buckets.most.max(FEW) {
            buckets.by_address.retain(|_, bucket| !bucket.is_full(rate, now));
            buckets.most = 2 * buckets.by_address.len();
        }
        let bucket = buckets.by_address.entry(counted_as).or_insert_with(|| Bucket::full(rate, now));
        (!bucket.take(1.0, rate, now)).then_some(rate)
    }

    /// Returns the number of addresses that have a bucket.
    pub fn addresses(&self) -> usize {
        self.0.lock().by_address.len()
    }
}
