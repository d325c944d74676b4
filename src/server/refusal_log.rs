//! The rate of log lines about refusals. A stranger causes one with each request, so their number has a limit.

use std::fmt;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::Limits;
use crate::config::rate::{Bucket, Rate};

/// Counts log lines about refusals against their rate.
pub(super) struct RefusalLog {
    state: Mutex<State>,
}

struct State {
    rate: Rate,
    bucket: Bucket,
    /// Lines that were left out since the last one that was logged.
    left_out: u64,
}

/// Whether a line is logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is logged, and tells how many were left out before it.
    Logged(u64),
    /// It is left out. `is_first` says whether it is the first one since the last line.
    LeftOut { is_first: bool },
}

/// The rates of log records that peers cause.
pub(super) struct RecordRates {
    /// About refusals.
    pub(super) refusals: RefusalLog,
    /// About requests, in the access log.
    pub(super) requests: RefusalLog,
}

impl RecordRates {
    /// Creates rates that nothing has used yet.
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            refusals: RefusalLog::new(limits.refusals_logged_per_second, now),
            requests: RefusalLog::new(limits.http.requests_logged_per_second, now),
        }
    }

    /// Replaces the rates.
    pub(super) fn set(&self, limits: &Limits) {
        self.refusals.set_rate(limits.refusals_logged_per_second);
        self.requests.set_rate(limits.http.requests_logged_per_second);
    }
}

impl RefusalLog {
    /// Creates a log that admits `per_second` lines a second, and as many at once.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let rate = Rate { per_second, burst: per_second };
        Self { state: Mutex::new(State { rate, bucket: Bucket::full(rate, now), left_out: 0 }) }
    }

    /// Sets the lines that are admitted a second, and at once.
    pub(super) fn set_rate(&self, per_second: u32) {
        self.state.lock().rate = Rate { per_second, burst: per_second };
    }

    /// Decides about one line.
    pub(super) fn admit(&self, now: Instant) -> Admission {
        let mut state = self.state.lock();
        let rate = state.rate;
        if state.bucket.take(1.0, rate, now) {
            return Admission::Logged(std::mem::take(&mut state.left_out));
        }
        state.left_out += 1;
        Admission::LeftOut { is_first: state.left_out == 1 }
    }

    /// Returns how many lines were left out since the last one that was logged, and forgets them.
    pub(super) fn take_left_out(&self) -> u64 {
        std::mem::take(&mut self.state.lock().left_out)
    }
}

/// A record about a refusal.
#[derive(Clone, Copy)]
pub(super) struct RefusalRecord<'a> {
    /// The name of the event.
    pub(super) event: &'static str,
    /// The line for people.
    pub(super) line: fmt::Arguments<'a>,
    /// The role of the peer.
    pub(super) role: Option<&'a str>,
    /// The address of the peer.
    pub(super) peer: Option<&'a dyn fmt::Display>,
    /// The id of the device.
    pub(super) device_id: Option<&'a str>,
    /// The code of the close frame, or the status.
    pub(super) code: Option<u16>,
    /// The reason.
    pub(super) reason: Option<&'a dyn fmt::Display>,
}

impl<'a> RefusalRecord<'a> {
    /// A record with no further fields.
    pub(super) fn new(event: &'static str, line: fmt::Arguments<'a>) -> Self {
        Self { event, line, role: None, peer: None, device_id: None, code: None, reason: None }
    }

    /// Logs it. `left_out` records before it were not logged.
    pub(super) fn log(&self, left_out: u64) {
        let Self { event, line, role, peer, device_id, code, reason } = *self;
        let (peer, reason) = (peer.map(tracing::field::display), reason.map(tracing::field::display));
        if left_out == 0 {
            tracing::info!(event, role, peer, device_id, code, reason, "{line}");
        } else {
            tracing::info!(
                event,
                role,
                peer,
                device_id,
                code,
                reason,
                left_out,
                "{line}, and {left_out} more before it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use crate::server::refusal_log::{Admission, RefusalLog};

    #[test]
    fn lines_above_the_rate_are_left_out_and_told_by_the_next_one() {
        let now = Instant::now();
        let log = RefusalLog::new(2, now);
        let admitted = [(); 5].map(|()| log.admit(now));
        let (logged, left_out) = (Admission::Logged(0), |is_first| Admission::LeftOut { is_first });
        assert_eq!(admitted, [logged, Admission::Logged(0), left_out(true), left_out(false), left_out(false)]);
        assert_eq!(log.admit(now + Duration::from_millis(500)), Admission::Logged(3));
        assert_eq!(log.admit(now + Duration::from_millis(500)), left_out(true));
        assert_eq!((log.take_left_out(), log.take_left_out()), (1, 0));
    }
}
