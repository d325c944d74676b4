//! The calls of hooks of one server: those that wait for a thread, and those that occupy one.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many calls may wait, and how many threads there may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Calls that wait for a thread.
    pub(super) waiting: usize,
    /// Threads that call hooks.
    pub(super) threads: usize,
}

/// The calls of one server, by their numbers.
pub(super) struct HookCalls<J> {
    /// Calls that no thread has taken yet. Numbers increase, so the first is the oldest.
    waiting: BTreeMap<u64, J>,
    /// Calls that occupy a thread.
    running: BTreeMap<u64, Running>,
    /// Threads that wait for a call, and have not been woken.
    idle: usize,
    /// The thread that was woken last, until it looks for a call. There is one at most: it wakes the next one.
    woken: Woken,
    bounds: Bounds,
}

/// A thread that was woken for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// There is none.
    None,
    /// It has been notified, and may still sleep.
    Notified,
    /// It waits for the interpreter's lock.
    Arriving,
}

/// A call that occupies a thread.
struct Running {
    hook: &'static str,
    device_id: Option<String>,
    /// Its peer no longer waits for the result.
    given_up: bool,
}

impl<J> HookCalls<J> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { waiting: BTreeMap::new(), running: BTreeMap::new(), idle: 0, woken: Woken::None, bounds }
    }

    /// Replaces the bounds.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Adds a call that waits for a thread. Returns it, and why there is no room, if there is none.
    pub(super) fn add(&mut self, key: u64, job: J) -> Result<(), (J, String)> {
        let Bounds { waiting, .. } = self.bounds;
        if self.waiting.len() >= waiting {
            let full = format!("the queue of hook calls is full (limits.hook_queue is {waiting}); {}", self.busy());
            return Err((job, full));
        }
        self.waiting.insert(key, job);
        Ok(())
    }

    /// Takes the oldest waiting call for a thread. `describe` returns the name of its hook, and its device id.
    pub(super) fn take(&mut self, describe: impl FnOnce(&J) -> (&'static str, Option<String>)) -> Option<J> {
        let (key, job) = self.waiting.pop_first()?;
        let (hook, device_id) = describe(&job);
        self.running.insert(key, Running { hook, device_id, given_up: false });
        Some(job)
    }

    /// Returns the device id of a call that occupies a thread, if it is known.
    pub(super) fn device_of(&self, key: u64) -> Option<String> {
        self.running.get(&key)?.device_id.clone()
    }

    /// Removes a call that waits for a thread.
    pub(super) fn remove_waiting(&mut self, key: u64) -> Option<J> {
        self.waiting.remove(&key)
    }

    /// Marks that the peer of a call no longer waits for the result.
    pub(super) fn give_up(&mut self, key: u64) {
        if let Some(running) = self.running.get_mut(&key) {
            running.given_up = true;
        }
    }

    /// Marks that the thread of a call is free again.
    pub(super) fn returned(&mut self, key: u64) {
        self.running.remove(&key);
    }

    /// Counts one more thread that waits for a call.
    pub(super) fn begin_waiting(&mut self) {
        self.idle += 1;
    }

    /// Whether a thread has to be notified: a call waits, a thread does too, and no other one is on its way.
    pub(super) fn wakes_thread(&mut self) -> bool {
        let wakes = self.idle > 0 && !self.waiting.is_empty() && self.woken == Woken::None;
        if wakes {
            self.idle -= 1;
            self.woken = Woken::Notified;
        }
        wakes
    }

    /// Whether no thread has been notified that has not noticed it.
    pub(super) fn none_notified(&self) -> bool {
        self.woken != Woken::Notified
    }

    /// Marks that the thread that was notified waits for the interpreter's lock.
    pub(super) fn arrives(&mut self) {
        self.woken = Woken::Arriving;
    }

    /// Marks that the thread that was woken looks for a call.
    pub(super) fn arrived(&mut self) {
        self.woken = Woken::None;
    }

    /// Whether a thread waits, or is on its way: it takes the next call if no other thread does.
    pub(super) fn has_spare(&self) -> bool {
        self.idle > 0 || self.woken != Woken::None
    }

    /// Says why a call has not been taken in time.
    pub(super) fn not_taken(&self) -> String {
        if self.woken != Woken::None {
            return "another thread holds the interpreter's lock".to_owned();
        }
        format!("no hook thread was free: {}", self.busy())
    }

    /// Says which hooks occupy the threads: `2 of 2 hook threads are in a call of ice_servers (2)`.
    pub(super) fn busy(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for Running { hook, .. } in self.running.values() {
            *counts.entry(hook).or_default() += 1;
        }
        let (running, threads) = (self.running.len(), self.bounds.threads);
        let mut text = format!("{running} of {threads} hook threads are in a call");
        for (nth, (hook, count)) in counts.iter().enumerate() {
            let before = if nth == 0 { " of " } else { ", " };
            let _infallible = write!(text, "{before}{hook} ({count})");
        }
        text
    }

    /// Returns why no call can begin: each thread is in a call that its peer has given up. `None` if one is not.
    pub(super) fn blocked(&self) -> Option<String> {
        let all = self.running.len() >= self.bounds.threads && self.running.values().all(|call| call.given_up);
        all.then(|| format!("No hook thread is free: {}, which did not return in time", self.busy()))
    }

    /// Removes all waiting calls.
    pub(super) fn clear(&mut self) -> Vec<J> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}
