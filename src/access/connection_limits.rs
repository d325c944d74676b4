//! Counts connections against their limits: in total, per address, per second, and before their first request.
//!
//! Loopback is exempt from the limit per address, since all local peers share that address. This module opens and
//! closes no socket.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Limits;
use crate::config::rate::{Bucket, Rate};
use crate::observe::incidents::{Incident, Incidents};

/// The `Retry-After` of a connection that was turned away, in seconds.
pub const RETRY_AFTER: u64 = 1;

/// The connection limits of one server.
pub struct ConnectionLimiter {
    limits: Limits,
    incidents: Arc<Incidents>,
    state: Mutex<State>,
}

struct State {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    arrivals: Bucket,
    /// Connections before their upgrade or first request, the oldest first.
    opening: BTreeMap<u64, Arc<Notify>>,
    last: u64,
}

/// The permit of one connection. Drop releases it.
pub struct Permit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
    number: u64,
    /// Notified when the connection has to make room for another.
    evicted: Arc<Notify>,
    /// The reason to answer the connection with 503 and nothing else.
    pub turned_away: Option<&'static str>,
}

impl ConnectionLimiter {
    /// Creates a limiter without connections.
    pub fn new(limits: Limits, incidents: Arc<Incidents>, now: Instant) -> Arc<Self> {
        let arrivals = Bucket::full(arrival_rate(&limits), now);
        let state = State { total: 0, by_address: HashMap::new(), arrivals, opening: BTreeMap::new(), last: 0 };
        Arc::new(Self { limits, incidents, state: Mutex::new(state) })
    }

    /// Counts a new connection, and decides whether it is turned away.
    ///
    /// In both cases the connection is opening until [`Permit::opened`] or drop. If too many connections are opening,
    /// this evicts the oldest: an honest connection opens in milliseconds.
    pub fn acquire(self: &Arc<Self>, address: IpAddr, now: Instant) -> Permit {
        let mut state = self.state.lock();
        let turned_away = self.no_room(&mut state, address, now);
        if turned_away.is_some() {
            self.incidents.count(Incident::TurnedAway);
        } else {
            state.total += 1;
            *state.by_address.entry(address).or_default() += 1;
        }
        state.last += 1;
        let number = state.last;
        let evicted = Arc::new(Notify::new());
        state.opening.insert(number, Arc::clone(&evicted));
        if state.opening.len() > self.limits.max_opening
            && let Some((_, oldest)) = state.opening.pop_first()
        {
            oldest.notify_one();
            self.incidents.count(Incident::OpeningCut);
        }
        Permit { limiter: Arc::clone(self), address, number, evicted, turned_away }
    }

    fn no_room(&self, state: &mut State, address: IpAddr, now: Instant) -> Option<&'static str> {
        if !state.arrivals.take(1.0, arrival_rate(&self.limits), now) {
            return Some("Too many new connections");
        }
        if state.total >= self.limits.max_connections {
            return Some("Too many connections");
        }
        let of_address = state.by_address.get(&address).copied().unwrap_or_default();
        if !address.is_loopback() && of_address >= self.limits.max_connections_per_address {
            return Some("Too many connections from this address");
        }
        None
    }
}

fn arrival_rate(limits: &Limits) -> Rate {
    Rate { per_second: limits.new_per_second, burst: limits.new_per_second }
}

impl Permit {
    /// Marks the connection as open: its first request has been read.
    pub fn opened(&self) {
        self.limiter.state.lock().opening.remove(&self.number);
    }

    /// Waits until the connection has to make room for another.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        state.opening.remove(&self.number);
        if self.turned_away.is_some() {
            return;
        }
        state.total -= 1;
        if let Some(count) = state.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                state.by_address.remove(&self.address);
            }
        }
    }
}
