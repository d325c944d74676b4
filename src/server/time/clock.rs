//! The clock of the protocol's deadlines: the system's, until a test freezes it or moves it.
//!
//! Then every deadline that this clock measures comes when the test says so.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::server::time::timers::Timers;

/// A clock that a test can control.
#[derive(Debug)]
pub struct Clock {
    /// Whether a test has controlled the clock. If not, reading it costs one atomic load.
    touched: AtomicBool,
    /// The relation to the system's clock; valid once `touched`.
    reading: Mutex<Reading>,
    /// Notified after each change.
    moved: watch::Sender<()>,
    /// Wakes tasks that wait for a time.
    timers: Arc<Timers>,
}

/// The relation to the system's clock: this clock showed `shown` when the system's showed `real`.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// The time for deadlines at `real`.
    shown: Instant,
    /// The time of day at `real`.
    shown_system: SystemTime,
    /// The system's time of the last change.
    real: Instant,
    /// Whether the clock stands still.
    frozen: bool,
}

impl Reading {
    /// The time by which this clock has moved since `real`.
    fn elapsed(&self) -> Duration {
        if self.frozen { Duration::ZERO } else { self.real.elapsed() }
    }

    /// Moves the clock, and freezes it or lets it run.
    fn set(&mut self, ahead: Duration, frozen: bool) {
        let step = self.elapsed() + ahead;
        // A time beyond the range of the type leaves the clock as it is.
        self.shown = self.shown.checked_add(step).unwrap_or(self.shown);
        self.shown_system = self.shown_system.checked_add(step).unwrap_or(self.shown_system);
        self.real = Instant::now();
        self.frozen = frozen;
    }
}

impl Clock {
    /// Creates a clock that shows the system's time. Its waiters are woken by `timers`.
    pub(in crate::server) fn new(timers: Arc<Timers>) -> Self {
        let now = Instant::now();
        let reading = Reading { shown: now, shown_system: SystemTime::now(), real: now, frozen: false };
        Self { touched: AtomicBool::new(false), reading: Mutex::new(reading), moved: watch::Sender::new(()), timers }
    }

    /// The time for deadlines.
    pub fn now(&self) -> Instant {
        if !self.touched.load(Ordering::Acquire) {
            return Instant::now();
        }
        let reading = self.reading.lock();
        reading.shown + reading.elapsed()
    }

    /// The time of day.
    pub fn system_now(&self) -> SystemTime {
        if !self.touched.load(Ordering::Acquire) {
            return SystemTime::now();
        }
        let reading = self.reading.lock();
        reading.shown_system + reading.elapsed()
    }

    /// The time of day in seconds since 1970.
    pub fn unix_now(&self) -> f64 {
        self.system_now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }

    /// Freezes the clock.
    pub fn freeze(&self) {
        self.update(|reading| reading.set(Duration::ZERO, true));
    }

    /// Lets the clock run, from the time that it shows.
    pub fn resume(&self) {
        self.update(|reading| reading.set(Duration::ZERO, false));
    }

    /// Moves the clock forward, frozen or not.
    pub fn advance(&self, by: Duration) {
        self.update(|reading| reading.set(by, reading.frozen));
    }

    /// Whether the clock is frozen.
    pub fn is_frozen(&self) -> bool {
        self.touched.load(Ordering::Acquire) && self.reading.lock().frozen
    }

    /// Changes the clock, then wakes all waiters.
    fn update(&self, update: impl FnOnce(&mut Reading)) {
        {
            let mut reading = self.reading.lock();
            if !self.touched.load(Ordering::Acquire) {
                // Until now the clock has shown the system's time.
                let now = Instant::now();
                *reading = Reading { shown: now, shown_system: SystemTime::now(), real: now, frozen: false };
            }
            update(&mut reading);
            self.touched.store(true, Ordering::Release);
        }
        self.moved.send_replace(());
    }

    /// The system's time at which this clock will show `due`. `None` while the clock is frozen before that.
    #[inline]
    pub fn real(&self, due: Instant) -> Option<Instant> {
        if self.touched.load(Ordering::Acquire) { self.real_when_touched(due) } else { Some(due) }
    }

    /// The same for a clock that a test has controlled.
    #[cold]
    fn real_when_touched(&self, due: Instant) -> Option<Instant> {
        let left = due.saturating_duration_since(self.now());
        if left.is_zero() {
            return Some(Instant::now());
        }
        if self.is_frozen() { None } else { Instant::now().checked_add(left) }
    }

    /// Waits until the clock shows `due`.
    pub async fn sleep_until(&self, due: Instant) {
        let mut moved = self.moved.subscribe();
        while self.now() < due {
            moved.mark_unchanged();
            let real = self.real(due);
            let sleep = async {
                match real {
                    Some(real) => self.timers.sleep_until(real).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                _ = moved.changed() => {}
            }
        }
    }

    /// Waits for a future until the timeout expires, which begins with this call. `None` if it expired.
    pub fn timeout<T>(&self, limit: Duration, future: impl Future<Output = T>) -> impl Future<Output = Option<T>> {
        self.timeout_at(self.now().checked_add(limit), future)
    }

    /// Waits for a future until the clock shows `due`; `None` is forever. Returns `None` if that came first.
    pub async fn timeout_at<T>(&self, due: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
        let expired = async {
            match due {
                Some(due) => self.sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = future => Some(done),
            () = expired => None,
        }
    }
}
