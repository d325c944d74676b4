//! Warnings that return with each attempt: a cause is logged once, until it has not been seen for a time.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Time without a cause after which it is logged again. It is longer than the pauses between attempts and between looks at
/// the registry, so that a node which joins and fails again and again logs its cause once.
const QUIET: Duration = Duration::from_secs(30);

/// The most causes that are known. No setting: each takes 16 bytes, and beyond it the oldest one may be logged twice.
const MAX_CAUSES: usize = 1024;

/// The causes of warnings, and when each was seen last.
#[derive(Default)]
pub(super) struct LogLimit(Mutex<HashMap<u64, Instant>>);

impl LogLimit {
    /// Notes a cause, and returns whether it is to be logged.
    pub(super) fn is_due(&self, cause: impl Hash, now: Instant) -> bool {
        // Of one key for all, so that a cause is known by its hash alone.
        let cause = BuildHasherDefault::<DefaultHasher>::default().hash_one(cause);
        let mut seen = self.0.lock();
        seen.retain(|_, last| now.saturating_duration_since(*last) < QUIET);
        if !seen.contains_key(&cause)
            && seen.len() >= MAX_CAUSES
            && let Some(oldest) = seen.iter().min_by_key(|(_, last)| **last).map(|(cause, _)| *cause)
        {
            seen.remove(&oldest);
        }
        seen.insert(cause, now).is_none()
    }
}

#[cfg(test)]
mod tests {
    use crate::server::nodes::log_limit::*;

    /// The seconds at which a cause that is seen at these is logged.
    fn logged(seen: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let (limit, began) = (LogLimit::default(), Instant::now());
        seen.into_iter().filter(|second| limit.is_due("cause", began + Duration::from_secs(*second))).collect()
    }

    #[test]
    fn cause_that_returns_is_logged_once() {
        assert_eq!(logged(0..3600), [0]);
        assert_eq!(logged((0..3600).step_by(29)), [0]);
    }

    #[test]
    fn cause_is_logged_again_after_a_time_without_it() {
        assert_eq!(logged([0, 1, 2, 32, 33, 61, 92]), [0, 32, 92]);
    }

    #[test]
    fn each_cause_counts_for_itself() {
        let (limit, now) = (LogLimit::default(), Instant::now());
        assert!(limit.is_due(("cluster_address", "b"), now));
        assert!(limit.is_due(("cluster_address", "c"), now));
        assert!(limit.is_due(("cluster_unreachable", "b"), now));
        // A cause that changes and changes back is known.
        assert!(!limit.is_due(("cluster_address", "b"), now));
    }

    #[test]
    fn number_of_causes_is_bounded_and_the_latest_are_known() {
        let (limit, began) = (LogLimit::default(), Instant::now());
        let most = u32::try_from(MAX_CAUSES).unwrap();
        let at = |cause: u32| began + Duration::from_millis(u64::from(cause));
        assert!((0..2 * most).all(|cause| limit.is_due(cause, at(cause))));
        assert_eq!(limit.0.lock().len(), MAX_CAUSES);
        assert!((most..2 * most).all(|cause| !limit.is_due(cause, at(2 * most))));
    }
}
