//! Histograms of times, and the calls of hooks by outcome.
//!
//! `GET /metrics` shows them. All times are on the clock of the protocol, which a test can freeze and move.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use prometheus_client::metrics::histogram::Histogram;

/// Bounds of the times of hooks and handshakes, in seconds.
const ANSWERS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds of the waits of clients for their device, in seconds. A virtual device boots for a minute.
const WAITS: [f64; 12] = [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0];

/// Bounds of the times of forwards in the server, in seconds. At rest it is 20 to 50 µs.
const QUEUES: [f64; 14] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0];

/// Of this many delivered forwards, one is timed. A power of two.
///
/// No setting: more samples would not change a quantile, and fewer would not make a message cheaper.
pub const FORWARDS_PER_SAMPLE: u64 = 256;

/// Hooks, in the order of their histograms.
pub const HOOKS: [&str; 3] = ["authorize", "ice_servers", "filter_device_info"];

/// Outcome of a call of a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookOutcome {
    /// It returned a value.
    Answered,
    /// It refused the peer.
    Refused,
    /// It raised, returned invalid data, or took too long.
    Failed,
    /// It was not called: no thread was free in time.
    NotCalled,
}

impl HookOutcome {
    /// All outcomes, in the order of their counters.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Refused, Self::Failed, Self::NotCalled];

    /// Returns its name in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::NotCalled => "not_called",
        }
    }
}

/// Kind of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// Of TLS, from the first bytes of the client on.
    Tls,
    /// Of a WebSocket, from the request on, `authorize` included.
    WebSocket,
}

impl Handshake {
    /// All kinds, in the order of their histograms.
    pub const ALL: [Self; 2] = [Self::Tls, Self::WebSocket];

    /// Returns its name in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
        }
    }
}

/// Times of one server, since its start.
#[derive(Debug)]
pub struct Timings {
    hooks: [Histogram; HOOKS.len()],
    hook_calls: [[AtomicU64; HookOutcome::ALL.len()]; HOOKS.len()],
    device_waits: Histogram,
    handshakes: [Histogram; Handshake::ALL.len()],
    queues: Histogram,
}

impl Default for Timings {
    /// Creates empty histograms.
    fn default() -> Self {
        Self {
            hooks: HOOKS.map(|_| Histogram::new(ANSWERS)),
            hook_calls: Default::default(),
            device_waits: Histogram::new(WAITS),
            handshakes: Handshake::ALL.map(|_| Histogram::new(ANSWERS)),
            queues: Histogram::new(QUEUES),
        }
    }
}

impl Timings {
    /// Records the end of a call of a hook that took this long. A hook that was not called took no time.
    pub fn observe_hook(&self, hook: &str, outcome: HookOutcome, took: Duration) {
        let Some(number) = HOOKS.iter().position(|name| *name == hook) else { return };
        if let Some(count) = self.hook_calls.get(number).and_then(|counts| counts.get(outcome as usize)) {
            count.fetch_add(1, Relaxed);
        }
        if let Some(histogram) = self.hooks.get(number).filter(|_| outcome != HookOutcome::NotCalled) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// Records that a client that had to wait for its device has got its device info.
    pub fn observe_device_wait(&self, waited: Duration) {
        self.device_waits.observe(waited.as_secs_f64());
    }

    /// Records a completed handshake.
    pub fn observe_handshake(&self, kind: Handshake, took: Duration) {
        self.handshakes[kind as usize].observe(took.as_secs_f64());
    }

    /// Records the time of a forward between its sender and its receiver.
    pub fn observe_queue(&self, queued: Duration) {
        self.queues.observe(queued.as_secs_f64());
    }

    /// Returns the histogram of each hook, with the name of the hook.
    pub fn hooks(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        HOOKS.into_iter().zip(&self.hooks)
    }

    /// Returns the calls of each hook by outcome: hook, outcome and count.
    pub fn hook_calls(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        HOOKS.into_iter().zip(&self.hook_calls).flat_map(|(hook, counts)| {
            HookOutcome::ALL
                .into_iter()
                .zip(counts)
                .map(move |(outcome, count)| (hook, outcome.as_str(), count.load(Relaxed)))
        })
    }

    /// Returns the histogram of the waits of clients for their device.
    pub fn device_waits(&self) -> &Histogram {
        &self.device_waits
    }

    /// Returns the histogram of each kind of handshake, with its name.
    pub fn handshakes(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        Handshake::ALL.into_iter().map(Handshake::as_str).zip(&self.handshakes)
    }

    /// Returns the histogram of the times of forwards.
    pub fn queues(&self) -> &Histogram {
        &self.queues
    }
}

/// Returns whether one of `count` forwards is timed, of which the first has this number, counted from 0.
#[inline]
pub fn is_sampled(first: u64, count: u64) -> bool {
    first.wrapping_neg() % FORWARDS_PER_SAMPLE < count
}

/// Returns the time since an earlier time; zero if a clock was read in another order.
pub fn since(earlier: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(earlier)
}
