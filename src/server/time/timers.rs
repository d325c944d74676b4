//! The alarm: wakes tasks when their time has come, with one timer for all of them. Knows no connection.
//!
//! tokio's timers would do. But while one of them is set, each wait for the network is a wait until then: for every
//! message the system is asked for the time four times more. What waits here costs nothing until it is due.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::timerfd::TimerFd;

/// When a bell rings, in milliseconds since the alarm was made, rounded up: what is due in the same one is done together.
type Millis = u64;

/// A bell among those that are set: when it rings, and a number of its own.
type TimerKey = (Millis, u64);

#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    entries: BTreeMap<TimerKey, Entry>,
    last_id: u64,
    /// `None` once the alarm is closed.
    timer: Option<TimerFd>,
    /// What the timer is set to.
    timer_at: Option<Millis>,
}

#[derive(Debug)]
struct Entry {
    waker: Waker,
    fired: Arc<AtomicBool>,
}

impl Timers {
    /// One that nobody has set. It rings as long as somebody polls [`Timers::run`].
    ///
    /// # Errors
    /// Where the system has no more descriptors.
    pub(in crate::server) fn new() -> io::Result<Arc<Self>> {
        let queue = Queue { entries: BTreeMap::new(), last_id: 0, timer: Some(TimerFd::new()?), timer_at: None };
        Ok(Arc::new(Self { start: Instant::now(), queue: Mutex::new(queue) }))
    }

    /// Wakes whoever is due, for ever.
    ///
    /// # Errors
    /// Where the runtime can not watch the timer.
    pub(in crate::server) async fn run(&self) -> io::Result<()> {
        let watched = self.queue.lock().timer.as_ref().map(TimerFd::watch);
        let Some(mut timer) = watched.transpose()? else { return Ok(()) };
        loop {
            timer.expired().await?;
            self.fire();
        }
    }

    /// Rings no more, and keeps nothing: neither a descriptor, nor a waker by which a runtime would keep its own.
    pub(in crate::server) fn close(&self) {
        let mut queue = self.queue.lock();
        queue.timer = None;
        let entries = std::mem::take(&mut queue.entries);
        // What goes with a waker may have a bell of its own.
        drop(queue);
        drop(entries);
    }

    fn fire(&self) {
        let due = {
            let mut queue = self.queue.lock();
            let next = self.floor(Instant::now()) + 1;
            let later = queue.entries.split_off(&(next, 0));
            let due = std::mem::replace(&mut queue.entries, later);
            queue.timer_at = queue.entries.keys().next().map(|&(at, _)| at);
            self.set_timer(&queue);
            // Under the lock: a bell that is set anew meanwhile has not rung.
            for entry in due.values() {
                entry.fired.store(true, Ordering::Release);
            }
            due
        };
        for entry in due.into_values() {
            entry.waker.wake();
        }
    }

    fn add(&self, at: Instant, entry: Entry) -> TimerKey {
        let at = self.ceiling(at);
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

    fn remove(&self, key: TimerKey) {
        // The timer stays as it is: to let it ring for nobody costs less than to set it.
        let _entry = self.queue.lock().entries.remove(&key);
    }

    fn set_timer(&self, queue: &Queue) {
        // What no clock will ever show needs no timer.
        let at = queue.timer_at.and_then(|at| self.start.checked_add(Duration::from_millis(at)));
        if let (Some(timer), Some(at)) = (&queue.timer, at) {
            timer.set(at.saturating_duration_since(Instant::now()));
        }
    }

    fn floor(&self, at: Instant) -> Millis {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }

    fn ceiling(&self, at: Instant) -> Millis {
        let since = at.saturating_duration_since(self.start);
        u64::try_from(since.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// What wakes one task at one time. Dropped, it rings no more.
pub(in crate::server) struct Timer {
    timers: Arc<Timers>,
    /// When it is to ring, and where it waits.
    set: Option<(Instant, TimerKey)>,
    fired: Arc<AtomicBool>,
}

impl Timer {
    /// Not set.
    pub(in crate::server) fn new(timers: &Arc<Timers>) -> Self {
        Self { timers: Arc::clone(timers), set: None, fired: Arc::default() }
    }

    /// Has it ring at this time, and not when it would have before.
    pub(in crate::server) fn set(&mut self, at: Instant, waker: &Waker) {
        self.unset();
        self.fired.store(false, Ordering::Release);
        let entry = Entry { waker: waker.clone(), fired: Arc::clone(&self.fired) };
        self.set = Some((at, self.timers.add(at, entry)));
    }

    /// Whether it is going to ring, at this time or sooner.
    pub(in crate::server) fn fires_by(&self, at: Instant) -> bool {
        self.set.is_some_and(|(fires_at, _)| fires_at <= at) && !self.fired()
    }

    /// Whether it has rung since it was set.
    pub(in crate::server) fn fired(&self) -> bool {
        self.fired.load(Ordering::Acquire)
    }

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
