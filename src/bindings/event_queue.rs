//! Queues from Rust to Python. Rust pushes and never waits; threads that Python started take the items.
//!
//! The number of log records is bounded here. Of the other events, each connection causes at most one at a time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::log_batch::Records;
use super::log_batch::WARNING;
use super::memory::give_back;

/// The most log records that wait for Python. Further ones are counted and dropped.
const MAX_RECORDS: usize = 10_000;

/// A queue on which Python threads block.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    filled: Condvar,
    idle: AtomicUsize,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        let state = State { items: VecDeque::new(), closed: false };
        Self { state: Mutex::new(state), filled: Condvar::new(), idle: AtomicUsize::new(0) }
    }

    /// Pushes an item. Returns false if the queue is closed.
    pub(super) fn put(&self, item: T) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            state.items.push_back(item);
            self.filled.notify_one();
        }
        !state.closed
    }

    /// Blocks until there is an item. Returns `None` if the queue is closed.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.state.lock();
        self.idle.fetch_add(1, Ordering::AcqRel);
        self.filled.wait_while(&mut state, |state| state.items.is_empty() && !state.closed);
        self.idle.fetch_sub(1, Ordering::AcqRel);
        if state.closed { None } else { state.items.pop_front() }
    }

    /// The number of waiting threads, minus the number of items.
    pub(super) fn spare(&self) -> usize {
        let state = self.state.lock();
        self.idle.load(Ordering::Acquire).saturating_sub(state.items.len())
    }

    /// Closes the queue: drops the items, and wakes all waiting threads.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        self.filled.notify_all();
    }
}

/// A batch of events for the event thread.
#[derive(Default)]
pub(super) struct Events {
    pub(super) records: Records,
    /// Log records dropped above [`MAX_RECORDS`].
    pub(super) dropped: u64,
    /// Peers have connected or left, and a coroutine waits for that.
    pub(super) changed: bool,
    /// Hook calls that timed out: hook, peer, deadline in seconds.
    pub(super) timeouts: Vec<(&'static str, String, f64)>,
    /// Keys of jobs whose caller no longer waits.
    pub(super) abandoned: Vec<u64>,
    /// Many peers have left, and their memory has not been returned to the system yet.
    many_left: bool,
}

/// Starts the event thread without waiting for it. Returns false if that failed.
type Call = Box<dyn Fn() -> bool + Send>;

/// The event queue of one server. One thread, the event thread, collects from it.
pub(super) struct EventQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
    /// The number of coroutines that wait for changes.
    watchers: AtomicUsize,
}

#[derive(Default)]
struct QueueState {
    batch: Events,
    /// Starts the event thread on the first event; `None` once it is started.
    on_first: Option<Call>,
    /// The batch contains an event that must be delivered at once.
    urgent: bool,
    /// Every record of the last batch was below the logger's level.
    unwanted: bool,
    closed: bool,
}

impl EventQueue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), watchers: AtomicUsize::new(0) }
    }

    /// Sets the function that the first event calls. Until then no thread needs to wait for events.
    pub(super) fn on_first(&self, call: Call) {
        let mut state = self.state.lock();
        if !state.closed {
            state.on_first = Some(call);
            if !state.batch.is_empty() {
                self.tell(&mut state);
            }
        }
    }

    /// Adds an event for immediate delivery.
    pub(super) fn push(&self, write: impl FnOnce(&mut Events)) {
        let mut state = self.state.lock();
        write(&mut state.batch);
        state.urgent = true;
        self.tell(&mut state);
    }

    /// Adds a log record, if there is room. Warnings and errors are delivered at once.
    pub(super) fn record(&self, level: u8, write: impl FnOnce(&mut String)) {
        let mut state = self.state.lock();
        let batch = &mut state.batch;
        if batch.records.len() >= MAX_RECORDS {
            batch.dropped += 1;
            return;
        }
        batch.records.push(level, write);
        let is_first = batch.records.len() == 1;
        let is_warning = level >= WARNING;
        state.urgent |= is_warning;
        if is_first || is_warning {
            self.tell(&mut state);
        }
    }

    /// Adds the event that peers have connected or left, if a coroutine waits for it.
    pub(super) fn mark_changed(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.push(|batch| batch.changed = true);
        }
    }

    /// Adds the event that memory of peers can be returned to the system.
    pub(super) fn many_left(&self) {
        let mut state = self.state.lock();
        state.batch.many_left = true;
        self.tell(&mut state);
    }

    /// Counts one more coroutine that waits for changes, or one less.
    pub(super) fn watch(&self, more: bool) {
        if more {
            self.watchers.fetch_add(1, Ordering::AcqRel);
        } else {
            self.watchers.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Blocks until there are events, and takes them all. Returns `None` if the queue is closed and empty.
    ///
    /// Without an urgent event it waits a little for more, and longer if the last batch was [`Self::unwanted`]: each
    /// delivery needs the interpreter's lock. It also returns memory to the system, so that no other thread has to.
    pub(super) fn collect(&self) -> Option<Events> {
        let mut state = self.state.lock();
        self.filled.wait_while(&mut state, |state| state.batch.is_empty() && !state.closed);
        let gathering = if state.unwanted { GATHERING_UNWANTED } else { GATHERING };
        self.filled.wait_while_for(&mut state, |state| !state.urgent && !state.closed, gathering);
        state.urgent = false;
        let batch = std::mem::take(&mut state.batch);
        drop(state);
        if batch.many_left {
            give_back();
        }
        if batch.is_empty() { None } else { Some(batch) }
    }

    /// Stores whether every record of the last batch was below the logger's level.
    pub(super) fn unwanted(&self, unwanted: bool) {
        self.state.lock().unwanted = unwanted;
    }

    /// Closes the queue: the event thread ends after the batch that waits.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.on_first = None;
        self.filled.notify_all();
    }

    fn tell(&self, state: &mut QueueState) {
        self.filled.notify_one();
        if state.on_first.as_ref().is_some_and(|call| call()) {
            state.on_first = None;
        }
    }
}

impl Events {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.dropped == 0
            && !self.changed
            && self.timeouts.is_empty()
            && self.abandoned.is_empty()
            && !self.many_left
    }
}

/// How long log records are batched before delivery.
const GATHERING: Duration = Duration::from_millis(5);

/// The same after a batch below the logger's level. Such records are still delivered, since the level may change.
const GATHERING_UNWANTED: Duration = Duration::from_millis(50);

/// How long a join waits for a thread beyond its deadline.
pub(super) const SLACK: Duration = Duration::from_secs(5);
