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
    /// Threads that wait for a call.
    idle: usize,
    bounds: Bounds,
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
        Self { waiting: BTreeMap::new(), running: BTreeMap::new(), idle: 0, bounds }
    }

    /// Replaces the bounds.
    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Adds a call that waits for a thread. Returns why there is no room, if there is none.
    pub(super) fn add(&mut self, key: u64, job: J) -> Result<(), String> {
        let Bounds { waiting, .. } = self.bounds;
        if self.waiting.len() >= waiting {
            return Err(format!("the queue of hook calls is full (limits.hook_queue is {waiting}); {}", self.busy()));
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

    /// Counts one more thread that waits for a call, or one less.
    pub(super) fn set_idle(&mut self, more: bool) {
        self.idle = if more { self.idle + 1 } else { self.idle.saturating_sub(1) };
    }

    /// Whether no call waits for a thread.
    pub(super) fn none_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The number of threads that wait, minus the number of waiting calls.
    pub(super) fn spare(&self) -> usize {
        self.idle.saturating_sub(self.waiting.len())
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
