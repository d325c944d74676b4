//! A sleep future on [`Timers`], for tasks that wait for more than one event, and for hyper.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::timers::{Timer, Timers};

/// Resolves when its time has come.
pub(in crate::server) struct Sleep {
    /// Wakes the task.
    timer: Timer,
    /// The time; `None` is beyond the range of the type, and never comes.
    until: Option<Instant>,
    /// The waker for which the timer is set.
    waker: Option<Waker>,
}

impl Timers {
    /// Waits until `at`, by the system's clock.
    pub(in crate::server) fn sleep_until(self: &Arc<Self>, at: Instant) -> Sleep {
        Sleep { timer: Timer::new(self), until: Some(at), waker: None }
    }

    /// Waits for a duration.
    pub(in crate::server) fn sleep(self: &Arc<Self>, time: Duration) -> Sleep {
        Sleep { timer: Timer::new(self), until: Instant::now().checked_add(time), waker: None }
    }

    /// Waits for a future until the timeout expires. `None` if it expired.
    pub(in crate::server) async fn timeout<T>(
        self: &Arc<Self>,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let sleep = self.sleep(limit);
        tokio::select! {
            biased;
            done = future => Some(done),
            () = sleep => None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.get_mut();
        let Some(until) = sleep.until else { return Poll::Pending };
        if sleep.timer.fired() {
            return Poll::Ready(());
        }
        if !sleep.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            if until <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.timer.set(until, cx.waker());
            sleep.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl hyper::rt::Sleep for Sleep {}

/// Gives hyper its timers.
pub(in crate::server) struct HyperTimer(pub(in crate::server) Arc<Timers>);

impl hyper::rt::Timer for HyperTimer {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.0.sleep(time))
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(self.0.sleep_until(at))
    }
}
