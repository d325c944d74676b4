//! Counts connections against their limits: in total, per address, per second, and before their first request.
//!
//! Loopback and trusted proxies are exempt from the limit per address, since many peers share these addresses. A WebSocket
//! through a trusted proxy counts for the address that the proxy tells. Connections to the local sockets have limits of
//! their own. This module opens and closes no socket.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::config::Limits;
use crate::config::rate::{Bucket, Rate};
use crate::core::address::counted;
use crate::observe::incidents::{Incident, Incidents};

/// The `Retry-After` of a connection that was turned away, in seconds.
pub const RETRY_AFTER: u64 = 1;

/// The reason against one more connection of an address.
const ADDRESS_FULL: &str = "Too many connections from this address";

/// [`Activity::waits_since`] while the server does not wait for the peer.
const BUSY: u64 = u64::MAX;

/// The connection limits of one server.
pub struct ConnectionLimiter {
    incidents: Arc<Incidents>,
    /// The time from which [`Activity::waits_since`] counts.
    start: Instant,
    state: Mutex<State>,
    /// Notified each time that a connection stops to be an opening one.
    freed: Notify,
}

struct State {
    limits: Limits,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    arrivals: Bucket,
    /// Connections before their upgrade or first request, the oldest first.
    opening: BTreeMap<u64, Arc<Activity>>,
    last: u64,
    /// No opening connection has been silent for long enough before this time.
    none_silent_before: Instant,
    /// Connections to the device socket and to the control socket.
    local: [usize; 2],
}

/// The last sign of life of an opening connection.
struct Activity {
    /// The address by which the limits count the peer.
    address: IpAddr,
    /// Since when the server waits for the peer, in nanoseconds since the limiter's start, or [`BUSY`].
    waits_since: AtomicU64,
    /// Notified when the connection has to make room for another.
    evicted: Notify,
}

/// The permit of one connection. Drop releases it.
pub struct Permit {
    limiter: Arc<ConnectionLimiter>,
    number: u64,
    activity: Arc<Activity>,
    /// The place of the sender behind a trusted proxy, from the upgrade on.
    sender: Mutex<Option<SenderPermit>>,
    /// The reason to answer the connection with 503 and nothing else.
    pub turned_away: Option<&'static str>,
}

/// A place among the connections of an address that a trusted proxy tells. Drop releases it.
pub struct SenderPermit {
    limiter: Arc<ConnectionLimiter>,
    address: IpAddr,
}

/// A local socket, whose connections count apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// The device socket.
    Devices,
    /// The control socket.
    Control,
}

/// The permit of one connection to a local socket. Drop releases it.
pub struct LocalPermit {
    limiter: Arc<ConnectionLimiter>,
    local: Local,
}

impl ConnectionLimiter {
    /// Creates a limiter without connections.
    pub fn new(limits: Limits, incidents: Arc<Incidents>, now: Instant) -> Arc<Self> {
        let state = State {
            total: 0,
            by_address: HashMap::new(),
            arrivals: Bucket::full(arrival_rate(&limits), now),
            opening: BTreeMap::new(),
            last: 0,
            none_silent_before: now,
            local: [0; 2],
            limits,
        };
        Arc::new(Self { incidents, start: now, state: Mutex::new(state), freed: Notify::new() })
    }

    /// Replaces the limits. Connections beyond new limits stay, and count.
    pub fn set_limits(&self, limits: Limits) {
        let mut state = self.state.lock();
        state.limits = limits;
        state.none_silent_before = self.start;
        drop(state);
        self.freed.notify_one();
    }

    /// Makes room for one more opening connection. `Some` if there is none: the time at which to try again, unless
    /// [`Self::freed`] resolves before.
    ///
    /// At `max_opening` a connection that has been silent for `opening_silence` is evicted: of the address that has the
    /// most of them, the oldest. A connection that is not silent keeps its place: it is an honest one that the server
    /// has not served yet, or soon becomes silent.
    pub fn make_room(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        if state.opening.len() < state.limits.max_opening {
            return None;
        }
        if now < state.none_silent_before {
            return Some(state.none_silent_before);
        }
        let Some(number) = self.silent_connection(&mut state, now) else { return Some(state.none_silent_before) };
        if let Some(activity) = state.opening.remove(&number) {
            activity.evicted.notify_one();
            self.incidents.count(Incident::OpeningCut);
        }
        None
    }

    /// Waits until a connection stops to be an opening one.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// The number of the connection to evict. If there is none, this sets [`State::none_silent_before`].
    fn silent_connection(&self, state: &mut State, now: Instant) -> Option<u64> {
        let silence = state.limits.opening_silence;
        let mut silent: HashMap<IpAddr, (usize, u64)> = HashMap::new();
        let mut next = silence;
        for (&number, activity) in &state.opening {
            let Some(waited) = self.waited(activity, now) else { continue };
            if waited >= silence {
                // The connections are sorted by age, so the first of an address is its oldest.
                silent.entry(activity.address).or_insert((0, number)).0 += 1;
            } else {
                next = next.min(silence.saturating_sub(waited));
            }
        }
        let busiest = silent.into_values().max_by_key(|&(count, oldest)| (count, std::cmp::Reverse(oldest)));
        if busiest.is_none() {
            state.none_silent_before = now + next;
        }
        busiest.map(|(_, oldest)| oldest)
    }

    /// How long the server has waited for the peer. `None` if the peer waits for the server.
    fn waited(&self, activity: &Activity, now: Instant) -> Option<Duration> {
        let since = activity.waits_since.load(Relaxed);
        let now = now.saturating_duration_since(self.start);
        (since != BUSY).then(|| now.saturating_sub(Duration::from_nanos(since)))
    }

    /// A time as [`Activity::waits_since`] has it.
    fn nanoseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(BUSY - 1)
    }

    /// Counts a new connection, and decides whether it is turned away.
    ///
    /// In both cases the connection is opening until [`Permit::opened`] or drop.
    pub fn acquire(self: &Arc<Self>, address: IpAddr, now: Instant) -> Permit {
        let address = counted(address);
        let mut state = self.state.lock();
        let turned_away = state.no_room(address, now);
        if turned_away.is_some() {
            self.incidents.count(Incident::TurnedAway);
        } else {
            state.total += 1;
            *state.by_address.entry(address).or_default() += 1;
        }
        state.last += 1;
        let number = state.last;
        let waits_since = AtomicU64::new(self.nanoseconds(now));
        let activity = Arc::new(Activity { address, waits_since, evicted: Notify::new() });
        state.opening.insert(number, Arc::clone(&activity));
        Permit { limiter: Arc::clone(self), number, activity, sender: Mutex::new(None), turned_away }
    }

    /// Counts a connection of a trusted proxy for the address that the proxy tells.
    ///
    /// # Errors
    /// The reason to answer with 503: this address has as many connections as it may.
    pub fn acquire_sender(self: &Arc<Self>, address: IpAddr) -> Result<SenderPermit, &'static str> {
        let address = counted(address);
        let mut state = self.state.lock();
        if state.address_is_full(address) {
            self.incidents.count(Incident::TurnedAway);
            return Err(ADDRESS_FULL);
        }
        *state.by_address.entry(address).or_default() += 1;
        Ok(SenderPermit { limiter: Arc::clone(self), address })
    }

    /// Counts a new connection to a local socket. `None` if its limit is reached.
    ///
    /// Only the limit of the socket applies: connections over the network take no place from it.
    pub fn acquire_local(self: &Arc<Self>, local: Local) -> Option<LocalPermit> {
        let mut state = self.state.lock();
        let limit = match local {
            Local::Devices => state.limits.max_device_socket_connections,
            Local::Control => state.limits.max_control_connections,
        };
        let count = &mut state.local[local as usize];
        if *count >= limit {
            self.incidents.count(Incident::TurnedAway);
            return None;
        }
        *count += 1;
        Some(LocalPermit { limiter: Arc::clone(self), local })
    }
}

fn arrival_rate(limits: &Limits) -> Rate {
    Rate { per_second: limits.new_per_second, burst: limits.new_per_second }
}

impl Permit {
    /// Marks the connection as open: its first request has been read.
    ///
    /// A connection that is turned away stays an opening one until it ends: no other limit counts it.
    pub fn opened(&self) {
        if self.turned_away.is_some() {
            return;
        }
        self.limiter.stop_opening(&mut self.limiter.state.lock(), self.number);
    }

    /// Keeps the place of the sender behind a trusted proxy as long as the connection.
    pub fn keep_sender(&self, sender: SenderPermit) {
        *self.sender.lock() = Some(sender);
    }

    /// Notes that the peer has sent or taken bytes.
    pub fn heard(&self, now: Instant) {
        if self.activity.waits_since.load(Relaxed) != BUSY {
            self.waits(now);
        }
    }

    /// Notes that the peer waits for the server. A peer that waits is not silent.
    pub fn busy(&self) {
        self.activity.waits_since.store(BUSY, Relaxed);
    }

    /// Notes that the server waits for the peer from now on.
    pub fn waits(&self, now: Instant) {
        self.activity.waits_since.store(self.limiter.nanoseconds(now), Relaxed);
    }

    /// Waits until the connection has to make room for another.
    pub async fn evicted(&self) {
        self.activity.evicted.notified().await;
    }
}

impl ConnectionLimiter {
    /// Removes a connection from the opening ones.
    fn stop_opening(&self, state: &mut State, number: u64) {
        if state.opening.remove(&number).is_some() {
            self.freed.notify_one();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.limiter.state.lock();
        self.limiter.stop_opening(&mut state, self.number);
        if self.turned_away.is_some() {
            return;
        }
        state.total -= 1;
        state.release(self.activity.address);
    }
}

impl Drop for SenderPermit {
    fn drop(&mut self) {
        self.limiter.state.lock().release(self.address);
    }
}

impl State {
    fn no_room(&mut self, address: IpAddr, now: Instant) -> Option<&'static str> {
        let rate = arrival_rate(&self.limits);
        if !self.arrivals.take(1.0, rate, now) {
            return Some("Too many new connections");
        }
        if self.total >= self.limits.max_connections {
            return Some("Too many connections");
        }
        self.address_is_full(address).then_some(ADDRESS_FULL)
    }

    fn address_is_full(&self, address: IpAddr) -> bool {
        let of_address = self.by_address.get(&address).copied().unwrap_or_default();
        !address.is_loopback() && of_address >= self.limits.max_connections_per_address
    }

    /// Takes one connection from the count of an address.
    fn release(&mut self, address: IpAddr) {
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        self.limiter.state.lock().local[self.local as usize] -= 1;
    }
}
