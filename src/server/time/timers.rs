//! Timers that wake tasks: one system timer for all of them, and a sorted map of the tasks that wait.
//!
//! # Why not tokio's timers
//!
//! While one of tokio's timers is set, each wait for the network has a timeout: the runtime reads the clock two times
//! more, and the kernel two times more. Every connection has a ping to think of, so a timer is always set. That costs
//! 0.15 µs of the CPU time of a message, or 3 % with 8 messages in flight (docs/performance.md). A timer that waits
//! here costs nothing until it is due, and the runtime needs no timers at all.
//!
//! Where there is no `timerfd`, the system timer is one of tokio's (the module `timerfd`). `tests/core/layers.rs`
//! checks that no other code of the server uses tokio's timers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::timerfd::TimerFd;

/// A deadline in milliseconds since the start, rounded up so that timers of the same millisecond fire together.
type Millis = u64;

/// A pending timer: its deadline and a number of its own.
type TimerKey = (Millis, u64);

/// The timers of one server.
#[derive(Debug)]
pub(crate) struct Timers {
    /// The time from which [`Millis`] count.
    start: Instant,
    /// The pending timers.
    queue: Mutex<Queue>,
}

/// The pending timers and the system timer that serves them.
#[derive(Debug)]
struct Queue {
    /// The pending timers by deadline.
    entries: BTreeMap<TimerKey, Entry>,
    /// The number of the latest timer.
    last_id: u64,
    /// The system timer; `None` once the timers are closed.
    timer: Option<TimerFd>,
    /// The deadline that the system timer is set to.
    timer_at: Option<Millis>,
}

/// A pending timer.
#[derive(Debug)]
struct Entry {
    /// The task to wake.
    waker: Waker,
    /// Set when the timer fires.
    fired: Arc<AtomicBool>,
}

impl Timers {
    /// Creates timers. They fire only while a task polls [`Timers::run`].
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub(in crate::server) fn new() -> io::Result<Arc<Self>> {
        let queue = Queue { entries: BTreeMap::new(), last_id: 0, timer: Some(TimerFd::new()?), timer_at: None };
        Ok(Arc::new(Self { start: Instant::now(), queue: Mutex::new(queue) }))
    }

    /// Fires due timers, forever.
    ///
    /// # Errors
    /// If the runtime cannot watch the system timer.
    pub(in crate::server) async fn run(&self) -> io::Result<()> {
        let watched = self.queue.lock().timer.as_ref().map(TimerFd::watch);
        let Some(mut timer) = watched.transpose()? else { return Ok(()) };
        loop {
            timer.expired().await?;
            self.fire();
        }
    }

    /// Drops the system timer and all pending timers, which then never fire.
    ///
    /// No waker may stay: a runtime keeps its own descriptors as long as a waker of one of its tasks exists.
    pub(in crate::server) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.timer = None;
        let entries = std::mem::take(&mut queue.entries);
        // Outside of the lock: dropping a waker may drop a task, and with it a `Timer`.
        drop(queue);
        drop(entries);
    }

    /// Wakes the tasks of all due timers, and sets the system timer to the next one.
    fn fire(&self) {
        let due = {
            let mut queue = self.queue.lock();
            let next = first_not_due(Instant::now().saturating_duration_since(self.start));
            let later = queue.entries.split_off(&(next, 0));
            let due = std::mem::replace(&mut queue.entries, later);
            queue.timer_at = queue.entries.keys().next().map(|&(at, _)| at);
            self.set_timer(&queue);
            // Under the lock, so that a timer that is set again meanwhile does not count as fired.
            for entry in due.values() {
                entry.fired.store(true, Ordering::Release);
            }
            due
        };
        for entry in due.into_values() {
            entry.waker.wake();
        }
    }

    /// Adds a timer, and sets the system timer if it is the earliest.
    fn add(&self, at: Instant, entry: Entry) -> TimerKey {
        let at = ceiling(at.saturating_duration_since(self.start));
        let mut queue = self.queue.lock();
        queue.last_id += 1;
        let key = (at, queue.last_id);
        queue.entries.insert(key, entry);
        if queue.timer_at.is_none_or(|set| at < set) {
            queue.timer_at = Some(at);
            self.set_timer(&queue);
        }
        key
    }

    /// Removes a timer.
    fn remove(&self, key: TimerKey) {
        // The system timer stays as it is: one needless wake-up costs less than setting it.
        let _entry = self.queue.lock().entries.remove(&key);
    }

    /// Sets the system timer.
    fn set_timer(&self, queue: &Queue) {
        // A deadline beyond the range of the type never comes, and needs no timer.
        let at = queue.timer_at.and_then(|at| self.start.checked_add(Duration::from_millis(at)));
        if let (Some(timer), Some(at)) = (&queue.timer, at) {
            timer.set(at.saturating_duration_since(Instant::now()));
        }
    }
}

/// The millisecond in which a timer is due that is set to this time since the start: rounded up, so that it never fires
/// early.
fn ceiling(since_start: Duration) -> Millis {
    u64::try_from(since_start.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The first millisecond that is not due yet at this time since the start.
fn first_not_due(since_start: Duration) -> Millis {
    u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Wakes one task at one time. A timer that is dropped does not fire.
pub(in crate::server) struct Timer {
    /// The timers that this one is part of.
    timers: Arc<Timers>,
    /// The time, and the entry in the queue.
    set: Option<(Instant, TimerKey)>,
    /// Set when the timer fires.
    fired: Arc<AtomicBool>,
}

impl Timer {
    /// Creates a timer that is not set.
    pub(in crate::server) fn new(timers: &Arc<Timers>) -> Self {
        Self { timers: Arc::clone(timers), set: None, fired: Arc::default() }
    }

    /// Sets the timer, instead of an earlier setting.
    pub(in crate::server) fn set(&mut self, at: Instant, waker: &Waker) {
        self.unset();
        self.fired.store(false, Ordering::Release);
        let entry = Entry { waker: waker.clone(), fired: Arc::clone(&self.fired) };
        self.set = Some((at, self.timers.add(at, entry)));
    }

    /// Whether the timer is set, has not fired, and will fire at `at` or earlier.
    #[inline]
    pub(in crate::server) fn fires_by(&self, at: Instant) -> bool {
        self.set.is_some_and(|(fires_at, _)| fires_at <= at) && !self.fired()
    }

    /// Whether the timer is set and has not fired.
    #[inline]
    pub(in crate::server) fn is_pending(&self) -> bool {
        self.set.is_some() && !self.fired()
    }

    /// Whether the timer has fired since it was set.
    pub(in crate::server) fn fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

    /// Cancels the timer.
    fn unset(&mut self) {
        if let Some((_, key)) = self.set.take()
            && !self.fired()
        {
            self.timers.remove(key);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.unset();
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, ceiling, first_not_due};

    fn is_due(at: Duration, now: Duration) -> bool {
        ceiling(at) < first_not_due(now)
    }

    #[test]
    fn timer_fires_at_its_deadline_and_less_than_a_millisecond_later() {
        let us = Duration::from_micros;
        for deadline in [us(0), us(1), us(999), us(1_000), us(1_001), us(2_500), us(10_000)] {
            assert_eq!(is_due(deadline, deadline), deadline.subsec_micros() % 1_000 == 0, "{deadline:?}");
            assert!(is_due(deadline, deadline + us(999)), "{deadline:?}");
            assert!(
                deadline.is_zero() || !is_due(deadline, deadline.saturating_sub(Duration::from_nanos(1))),
                "{deadline:?}"
            );
        }
    }

    #[test]
    fn deadline_beyond_the_clock_is_never_due() {
        assert!(!is_due(Duration::MAX, Duration::from_secs(1)));
    }
}
