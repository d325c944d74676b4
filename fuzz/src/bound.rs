//! Bounds the CPU time of one input: 100 ms, in a release build.
//!
//! libFuzzer's own timeout has whole seconds only, and measures wall-clock time, which depends on the load of the machine.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const LONGEST: Duration = Duration::from_millis(100);

/// Runs a target on an input.
///
/// # Panics
///
/// If the target panics, or takes more than 100 ms of this thread's CPU time.
pub fn within_bounds(target: fn(&[u8]), data: &[u8]) {
    let start = cpu_time();
    target(data);
    let took = cpu_time().saturating_sub(start);
    assert!(took <= LONGEST, "{} bytes took {took:?} of CPU time", data.len());
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
