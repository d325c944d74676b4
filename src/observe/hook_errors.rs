//! The last calls of hooks that failed.

use std::collections::VecDeque;

use crate::sync::Mutex;

/// The maximum number of failed calls that are kept.
const MOST_KEPT: usize = 20;

/// A call of a hook that failed.
#[derive(Debug, Clone, PartialEq)]
pub struct HookFailure {
    /// The time in seconds since 1970, by the server's clock.
    pub at: f64,
    /// The name of the hook.
    pub hook: &'static str,
    /// The address of the peer that the hook was called for.
    pub peer: String,
    /// The way in which it failed.
    pub how: HowFailed,
}

/// The way in which a call of a hook failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowFailed {
    /// It raised an exception, or returned an invalid value.
    Raised,
    /// It gave no answer before its deadline.
    TimedOut,
    /// No thread was free to call it.
    NotCalled,
}

impl HowFailed {
    /// Returns its name on the dashboard.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::TimedOut => "timed_out",
            Self::NotCalled => "not_called",
        }
    }
}

/// The failed calls of one server: their number, and the last ones.
#[derive(Debug, Default)]
pub struct HookFailures(Mutex<(u64, VecDeque<HookFailure>)>);

impl HookFailures {
    /// Adds a failed call. Beyond the maximum, the oldest is dropped.
    pub fn add(&self, failure: HookFailure) {
        let mut kept = self.0.lock();
        kept.0 += 1;
        kept.1.truncate(MOST_KEPT - 1);
        kept.1.push_front(failure);
    }

    /// Returns how many calls have failed so far.
    pub fn count(&self) -> u64 {
        self.0.lock().0
    }

    /// Returns the last failed calls, the latest first.
    pub fn latest(&self) -> Vec<HookFailure> {
        self.0.lock().1.iter().cloned().collect()
    }
}
