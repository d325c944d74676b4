//! The time by which a server goes. It is the system's, until a test freezes it or moves it on: then every deadline
//! that is measured by it comes when the test says so.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::server::time::timers::Timers;

/// A clock that is the system's until it is touched.
#[derive(Debug)]
pub struct Clock {
    /// Whether it has ever been touched. Where not, it costs one atomic load.
    touched: AtomicBool,
    reading: Mutex<Reading>,
    moved: watch::Sender<()>,
    timers: Arc<Timers>,
}

/// It showed `shown` when the system's clock was at `real`.
#[derive(Debug, Clone, Copy)]
struct Reading {
    shown: Instant,
    shown_system: SystemTime,
    real: Instant,
    frozen: bool,
}

impl Reading {
    fn elapsed(&self) -> Duration {
        if self.frozen { Duration::ZERO } else { self.real.elapsed() }
    }

    fn set(&mut self, ahead: Duration, frozen: bool) {
        let step = self.elapsed() + ahead;
        // Tests do not travel beyond what the types can say; should one, time stands.
        self.shown = self.shown.checked_add(step).unwrap_or(self.shown);
        self.shown_system = self.shown_system.checked_add(step).unwrap_or(self.shown_system);
        self.real = Instant::now();
        self.frozen = frozen;
    }
}

impl Clock {
    /// The system's time; those who wait are woken by this alarm.
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

    /// Stops it.
    pub fn freeze(&self) {
        self.update(|reading| reading.set(Duration::ZERO, true));
    }

    /// Lets it go on from where it stands.
    pub fn resume(&self) {
        self.update(|reading| reading.set(Duration::ZERO, false));
    }

    /// Moves it on, frozen or not.
    pub fn advance(&self, by: Duration) {
        self.update(|reading| reading.set(by, reading.frozen));
    }

    /// Whether it stands.
    pub fn is_frozen(&self) -> bool {
        self.touched.load(Ordering::Acquire) && self.reading.lock().frozen
    }

    fn update(&self, update: impl FnOnce(&mut Reading)) {
        {
            let mut reading = self.reading.lock();
            if !self.touched.load(Ordering::Acquire) {
                // Until now it showed the system's time.
                let now = Instant::now();
                *reading = Reading { shown: now, shown_system: SystemTime::now(), real: now, frozen: false };
            }
            update(&mut reading);
            self.touched.store(true, Ordering::Release);
        }
        self.moved.send_replace(());
    }

    /// When the system's clock will be at this time of ours; `None` while it stands before that.
    pub fn real(&self, due: Instant) -> Option<Instant> {
        if !self.touched.load(Ordering::Acquire) {
            return Some(due);
        }
        let left = due.saturating_duration_since(self.now());
        if left.is_zero() {
            return Some(Instant::now());
        }
        if self.is_frozen() { None } else { Instant::now().checked_add(left) }
    }

    /// Waits until this time.
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

    /// Waits for a future, at most so long; `None` if it took longer.
    pub async fn timeout<T>(&self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let due = self.now().checked_add(limit);
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
