//! Where Rust leaves what is for Python, and threads of Python's come to fetch it. Leaving never waits. Log records
//! are bounded here; of the rest there is at most one for each connection.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::log_batch::Records;
use super::log_batch::WARNING;
use super::memory::give_back;

/// Log records that may wait for Python; the rest is counted and dropped.
const MAX_RECORDS: usize = 10_000;

/// Something a thread of Python's waits for.
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

    /// Leaves an item; false once closed.
    pub(super) fn put(&self, item: T) -> bool {
        let mut state = self.state.lock();
        if !state.closed {
            state.items.push_back(item);
            self.filled.notify_one();
        }
        !state.closed
    }

    /// Waits for an item; `None` once closed.
    pub(super) fn take(&self) -> Option<T> {
        let mut state = self.state.lock();
        self.idle.fetch_add(1, Ordering::AcqRel);
        self.filled.wait_while(&mut state, |state| state.items.is_empty() && !state.closed);
        self.idle.fetch_sub(1, Ordering::AcqRel);
        if state.closed { None } else { state.items.pop_front() }
    }

    /// Threads that wait, less the items there are for them.
    pub(super) fn spare(&self) -> usize {
        let state = self.state.lock();
        self.idle.load(Ordering::Acquire).saturating_sub(state.items.len())
    }

    /// Nothing more comes; what waits is dropped, and so is everybody's wait.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.items.clear();
        self.filled.notify_all();
    }
}

/// News for the one thread that carries them to Python.
#[derive(Default)]
pub(super) struct Events {
    pub(super) records: Records,
    /// Records that were dropped because there were too many.
    pub(super) dropped: u64,
    /// Somebody came or went, and somebody waits for that.
    pub(super) changed: bool,
    /// Hooks that gave no answer: hook, peer, seconds.
    pub(super) timeouts: Vec<(&'static str, String, f64)>,
    /// Jobs nobody waits for any more.
    pub(super) abandoned: Vec<u64>,
    /// Many peers have left; what they used has not gone back yet.
    many_left: bool,
}

/// Sees to it that somebody collects, without waiting for that; false if it could not.
type Call = Box<dyn Fn() -> bool + Send>;

/// The letterbox of one server.
pub(super) struct EventQueue {
    state: Mutex<QueueState>,
    filled: Condvar,
    /// How many coroutines wait for changes.
    watchers: AtomicUsize,
}

#[derive(Default)]
struct QueueState {
    batch: Events,
    /// What the first letter does, where nobody collects yet.
    on_first: Option<Call>,
    /// Something in it can not wait.
    urgent: bool,
    /// Of the last delivery, nobody wanted what Python was woken for.
    unwanted: bool,
    closed: bool,
}

impl EventQueue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), watchers: AtomicUsize::new(0) }
    }

    /// What the first letter is to do: until there is one, nobody need wait for it.
    pub(super) fn on_first(&self, call: Call) {
        let mut state = self.state.lock();
        if !state.closed {
            state.on_first = Some(call);
            if !state.batch.is_empty() {
                self.tell(&mut state);
            }
        }
    }

    /// Leaves something that somebody waits for.
    pub(super) fn push(&self, write: impl FnOnce(&mut Events)) {
        let mut state = self.state.lock();
        write(&mut state.batch);
        state.urgent = true;
        self.tell(&mut state);
    }

    /// Leaves a log record, if there is room. Warnings are delivered at once.
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

    /// Tells that somebody came or went, if a coroutine waits for that.
    pub(super) fn ring(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.push(|batch| batch.changed = true);
        }
    }

    /// Tells that what peers used can go back to the system.
    pub(super) fn many_left(&self) {
        let mut state = self.state.lock();
        state.batch.many_left = true;
        self.tell(&mut state);
    }

    /// One coroutine more waits for changes, or one less.
    pub(super) fn watch(&self, more: bool) {
        if more {
            self.watchers.fetch_add(1, Ordering::AcqRel);
        } else {
            self.watchers.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits for letters and takes them all; `None` once closed and empty. Where there is nothing urgent, waits a little
    /// for more, and longer if the last ones were [`Self::unwanted`]: each delivery costs the interpreter's lock. Memory
    /// that can go back does, on this thread.
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

    /// Whether all that was collected last was log records of levels that nobody wants.
    pub(super) fn unwanted(&self, unwanted: bool) {
        self.state.lock().unwanted = unwanted;
    }

    /// Nothing more comes.
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

/// How long log records are gathered before they are delivered.
const GATHERING: Duration = Duration::from_millis(5);

/// The same where nobody wants them: their levels are asked for all the same, since they may change at any time.
const GATHERING_UNWANTED: Duration = Duration::from_millis(50);

/// How long a join of ours waits beyond what was asked, before it gives up on a thread.
pub(super) const SLACK: Duration = Duration::from_secs(5);
