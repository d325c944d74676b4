//! The queue from Rust to Python, one for each server. Rust pushes and never waits; threads that Python started take.
//!
//! The event thread takes log records and other events, and hook threads take the calls of hooks. All of it is bounded:
//! records and unanswered calls here, calls by the settings. Of the other events, each connection causes at most one at a
//! time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::hook_calls::{Bounds, HookCalls};
use super::job::{Job, Unanswered};
use super::log_batch::{DEBUG, Records, WARNING, Writer};
use super::memory::give_back;
use super::program::ProgramRequest;

/// The most log records that wait for Python, and the most unanswered calls. Further ones are counted and dropped.
const MAX_RECORDS: usize = 10_000;

/// How long log records are batched before delivery: each delivery needs the interpreter's lock.
const GATHERING: Duration = Duration::from_millis(5);

/// How long log records wait whose level the logger is not enabled for. Python filters them, and so finds that its level
/// has changed meanwhile. Each delivery costs it more than the records.
const GATHERING_UNWANTED: Duration = Duration::from_millis(250);

/// The number of log records that are delivered, wanted or not.
const MANY_RECORDS: usize = 1_000;

/// How long a join waits for a thread beyond its deadline.
pub(super) const SLACK: Duration = Duration::from_secs(5);

/// A batch of events for the event thread.
#[derive(Default)]
pub(super) struct Events {
    pub(super) records: Records,
    /// Log records dropped above [`MAX_RECORDS`].
    pub(super) dropped: u64,
    /// Peers have connected or left, and a coroutine waits for that.
    pub(super) changed: bool,
    /// Hook calls without an answer.
    pub(super) unanswered: Vec<Unanswered>,
    /// Unanswered calls dropped above [`MAX_RECORDS`].
    pub(super) unanswered_dropped: u64,
    /// Numbers of calls whose peer no longer waits.
    pub(super) abandoned: Vec<u64>,
    /// Requests of the control API that Python answers. The bound on such requests bounds them.
    pub(super) requests: Vec<ProgramRequest>,
    /// The runtime has made progress, and the service manager is to be told.
    pub(super) beat: bool,
    /// Many peers have left, and their memory has not been returned to the system yet.
    many_left: bool,
}

/// The event queue of one server.
pub(super) struct EventQueue {
    state: Mutex<State>,
    /// Wakes the event thread.
    event: Condvar,
    /// Wakes a hook thread.
    call: Condvar,
    /// The number of coroutines that wait for changes.
    watchers: AtomicUsize,
}

/// When a batch is delivered: the most urgent of its events decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Delivery {
    /// After [`GATHERING_UNWANTED`]: it has only log records that Python will filter out.
    Late,
    /// After [`GATHERING`].
    Soon,
    /// At once.
    Now,
}

struct State {
    batch: Events,
    calls: HookCalls<Job>,
    /// When the batch is delivered.
    delivery: Delivery,
    /// The lowest level that the logger is enabled for, as Python has told it last.
    lowest_level: u8,
    /// [`EventQueue::wait_first`] has to return, although there is no event.
    parks: bool,
    closed: bool,
}

impl EventQueue {
    pub(super) fn new(bounds: Bounds) -> Self {
        let calls = HookCalls::new(bounds);
        let (batch, lowest_level) = (Events::default(), DEBUG);
        let state = State { batch, calls, delivery: Delivery::Late, lowest_level, parks: true, closed: false };
        Self { state: Mutex::new(state), event: Condvar::new(), call: Condvar::new(), watchers: AtomicUsize::new(0) }
    }

    /// Adds an event for immediate delivery.
    fn push(&self, state: &mut State, write: impl FnOnce(&mut Events)) {
        write(&mut state.batch);
        state.delivery = Delivery::Now;
        self.event.notify_one();
    }

    /// Adds a log record, if there is room. Warnings and errors are delivered at once.
    pub(super) fn record(&self, level: u8, write: impl FnOnce(&mut Writer<'_>)) {
        let mut state = self.state.lock();
        let batch = &mut state.batch;
        if batch.records.len() >= MAX_RECORDS {
            batch.dropped += 1;
            return;
        }
        batch.records.push(level, write);
        let count = batch.records.len();
        let delivery = match level {
            WARNING.. => Delivery::Now,
            _ if level >= state.lowest_level || count >= MANY_RECORDS => Delivery::Soon,
            _ => Delivery::Late,
        };
        if count == 1 || delivery > state.delivery {
            state.delivery = delivery.max(state.delivery);
            self.event.notify_one();
        }
    }

    /// Adds the event that peers have connected or left, if a coroutine waits for it.
    pub(super) fn mark_changed(&self) {
        if self.watchers.load(Ordering::Acquire) > 0 {
            self.push(&mut self.state.lock(), |batch| batch.changed = true);
        }
    }

    /// Adds the event that the runtime has made progress.
    pub(super) fn beat(&self) {
        self.push(&mut self.state.lock(), |batch| batch.beat = true);
    }

    /// Adds a request of the control API. A closed queue drops it.
    pub(super) fn ask(&self, request: ProgramRequest) {
        let mut state = self.state.lock();
        if !state.closed {
            self.push(&mut state, |batch| batch.requests.push(request));
        }
    }

    /// Adds the event that memory of peers can be returned to the system.
    pub(super) fn many_left(&self) {
        self.state.lock().batch.many_left = true;
        self.event.notify_one();
    }

    /// Counts one more coroutine that waits for changes, or one less.
    pub(super) fn watch(&self, more: bool) {
        if more {
            self.watchers.fetch_add(1, Ordering::AcqRel);
        } else {
            self.watchers.fetch_sub(1, Ordering::AcqRel);
        }
    }

    // The event thread ------------------------------------------------------------------------------------------------

    /// Blocks until there are events. Returns false if [`Self::end_parking`] was called before one had to be delivered.
    /// Log records that Python will filter out are left to [`Self::collect`] then, without a thread of their own.
    ///
    /// `lowest_level` is the lowest level that the logger is enabled for.
    pub(super) fn wait_first(&self, lowest_level: u8) -> bool {
        let mut state = self.state.lock();
        let is_due = self.wait(&mut state, lowest_level, |state| !state.parks || state.closed);
        is_due && !state.batch.is_empty()
    }

    /// Waits for events, or until the wait is over for another reason. Log records alone that Python will filter out end
    /// it only when they are many or have waited for long. Returns whether events ended it.
    fn wait(&self, state: &mut MutexGuard<'_, State>, lowest_level: u8, is_over: impl Fn(&State) -> bool) -> bool {
        state.lowest_level = lowest_level;
        self.event.wait_while(state, |state| state.batch.is_empty() && !is_over(state));
        self.event.wait_while_for(
            state,
            |state| state.delivery == Delivery::Late && !is_over(state),
            GATHERING_UNWANTED,
        );
        let is_due = state.delivery > Delivery::Late || !is_over(state);
        state.delivery = state.delivery.max(Delivery::Soon);
        is_due
    }

    /// Ends [`Self::wait_first`]. Events that come later are left to [`Self::collect`].
    pub(super) fn end_parking(&self) {
        self.state.lock().parks = false;
        self.event.notify_all();
    }

    /// Blocks until there are events, and takes them all. Returns `None` if the queue is closed and empty.
    ///
    /// `lowest_level` is the lowest level that the logger is enabled for. Without an urgent event it waits a little for
    /// more. It also returns memory to the system, so that no other thread has to.
    pub(super) fn collect(&self, lowest_level: u8) -> Option<Events> {
        let mut state = self.state.lock();
        self.wait(&mut state, lowest_level, |state| state.closed);
        self.event.wait_while_for(&mut state, |state| state.delivery != Delivery::Now && !state.closed, GATHERING);
        state.delivery = Delivery::Late;
        let batch = std::mem::take(&mut state.batch);
        drop(state);
        if batch.many_left {
            give_back();
        }
        if batch.is_empty() { None } else { Some(batch) }
    }

    // Hook threads ----------------------------------------------------------------------------------------------------

    /// Adds a call. If there is no room, it is dropped, and reported as unanswered. A closed queue drops it.
    pub(super) fn add_call(&self, job: Job) -> Added {
        let mut state = self.state.lock();
        if state.closed {
            return Added::Closed;
        }
        let Err((job, reason)) = state.calls.add(job.key, job) else {
            self.wake_thread(&mut state);
            return Added::Waits;
        };
        self.report(&mut state, Unanswered { not_called: Some(reason), ..job.unanswered() });
        Added::Full
    }

    /// Takes a call, if one waits, and tells whether no other thread waits or is on its way.
    ///
    /// `finished` is the call that the thread has taken before; `woken` says that it comes from [`Self::wait_call`].
    pub(super) fn take_call(&self, finished: Option<u64>, woken: bool) -> Result<Option<(Job, bool)>, Closed> {
        let mut state = self.state.lock();
        if let Some(key) = finished {
            state.calls.returned(key);
        }
        if woken {
            state.calls.arrived();
        }
        if state.closed {
            return Err(Closed);
        }
        let Some(job) = state.calls.take(|job| (job.hook, job.device_id.clone())) else { return Ok(None) };
        // This thread may hang in the hook. Another one has to take the next call.
        self.wake_thread(&mut state);
        Ok(Some((job, !state.calls.has_spare())))
    }

    /// Blocks until this thread is woken for a call, or the queue is closed.
    ///
    /// The thread then takes a call when it has the interpreter's lock: until then, the thread that has it may take the
    /// call, which saves a change of threads.
    pub(super) fn wait_call(&self) {
        let mut state = self.state.lock();
        state.calls.begin_waiting();
        // A call may have come meanwhile.
        self.wake_thread(&mut state);
        self.call.wait_while(&mut state, |state| state.calls.none_notified() && !state.closed);
        state.calls.arrives();
    }

    /// Notifies a thread, if a call waits and no thread is on its way to it.
    fn wake_thread(&self, state: &mut State) {
        if state.calls.wakes_thread() {
            self.call.notify_one();
        }
    }

    /// Reports that a call has exceeded its deadline. Returns whether a thread has taken the call.
    pub(super) fn timed_out(&self, unanswered: Unanswered) -> bool {
        let mut state = self.state.lock();
        let waiting = state.calls.remove_waiting(unanswered.key);
        let not_called = waiting.as_ref().map(|_| state.calls.not_taken());
        let device_id = match &waiting {
            Some(job) => job.device_id.clone(),
            None => state.calls.device_of(unanswered.key),
        };
        self.report(&mut state, Unanswered { device_id, not_called, ..unanswered });
        waiting.is_none()
    }

    /// Removes a call whose peer no longer waits, or reports it to Python if a thread has taken it.
    pub(super) fn abandon(&self, key: u64) {
        let mut state = self.state.lock();
        if state.calls.remove_waiting(key).is_none() {
            state.calls.give_up(key);
            self.push(&mut state, |batch| batch.abandoned.push(key));
        }
    }

    /// Replaces the bounds of calls. Those that wait stay.
    pub(super) fn set_bounds(&self, bounds: Bounds) {
        self.state.lock().calls.set_bounds(bounds);
    }

    /// Returns why no hook can be called.
    pub(super) fn blocked(&self) -> Option<String> {
        self.state.lock().calls.blocked()
    }

    fn report(&self, state: &mut State, unanswered: Unanswered) {
        self.push(state, |batch| {
            if batch.unanswered.len() < MAX_RECORDS {
                batch.unanswered.push(unanswered);
            } else {
                batch.unanswered_dropped += 1;
            }
        });
    }

    /// Closes the queue: drops the waiting calls, and the threads end. The event thread takes the last batch before.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        // Dropped without the lock: their peers are told.
        let waiting = state.calls.clear();
        drop(state);
        drop(waiting);
        self.event.notify_all();
        self.call.notify_all();
    }
}

/// The queue is closed.
pub(super) struct Closed;

/// The outcome of [`EventQueue::add_call`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// The call waits for a thread.
    Waits,
    /// There is no room for it.
    Full,
    /// The server has stopped.
    Closed,
}

impl Events {
    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.dropped == 0
            && !self.changed
            && self.unanswered.is_empty()
            && self.abandoned.is_empty()
            && self.requests.is_empty()
            && !self.beat
            && !self.many_left
    }
}
