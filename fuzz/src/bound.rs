//! No input takes long: a tenth of a second of the processor, in a release build. libFuzzer knows whole seconds only, and
//! those of a clock on the wall, which a busy machine lets pass for nothing.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const LONGEST: Duration = Duration::from_millis(100);

/// Runs a target on an input.
///
/// # Panics
///
/// Where it took this thread more than 100 ms of processor time, or where the target panics.
pub fn within_bounds(target: fn(&[u8]), data: &[u8]) {
    let began = spent();
    target(data);
    let took = spent().saturating_sub(began);
    assert!(took <= LONGEST, "{} bytes took {took:?} of the processor", data.len());
}

fn spent() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
