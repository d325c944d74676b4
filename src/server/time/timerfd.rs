//! The one system timer behind [`Timers`](super::timers::Timers).
//!
//! On Linux it is a `timerfd`, a descriptor that becomes readable and that the runtime watches like a socket. Elsewhere
//! it is a timer of tokio.

#[cfg(target_os = "linux")]
pub(in crate::server) use self::descriptor::TimerFd;
#[cfg(not(target_os = "linux"))]
pub(in crate::server) use self::runtime::TimerFd;

#[cfg(target_os = "linux")]
mod descriptor {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::Arc;
    use std::time::Duration;

    use rustix::io::Errno;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    /// A timer. The descriptor is closed once the task that watches it has gone too.
    #[derive(Debug)]
    pub(in crate::server) struct TimerFd(Arc<OwnedFd>);

    /// The timer as a runtime watches it.
    pub(in crate::server) struct Watched(AsyncFd<Arc<OwnedFd>>);

    impl TimerFd {
        /// Creates a timer that is not set.
        pub(in crate::server) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Ok(Self(Arc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)))
        }

        /// Sets the timer to expire once, after `left`.
        pub(in crate::server) fn set(&self, left: Duration) {
            // Zero would disarm the timer.
            let left = left.max(Duration::from_nanos(1));
            let Ok(it_value) = Timespec::try_from(left) else { return };
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            if let Err(error) = timerfd_settime(self.0.as_fd(), TimerfdTimerFlags::empty(), &once) {
                let what = "a timer cannot be set, and deadlines will be missed";
                tracing::error!(event = "timer_failed", reason = %error, "{what}: {error}");
            }
        }

        #[allow(
            deprecated,
            reason = "its heir is unsafe, for the sake of types whose descriptor may change: this one's does not"
        )]
        /// Registers the timer with the current runtime.
        pub(in crate::server) fn watch(&self) -> io::Result<Watched> {
            AsyncFd::with_interest(Arc::clone(&self.0), Interest::READABLE).map(Watched)
        }
    }

    impl Watched {
        /// Waits until the timer expires.
        pub(in crate::server) async fn expired(&mut self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                match rustix::io::read(self.0.get_ref().as_fd(), &mut [0; 8]) {
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    outcome => {
                        // The timer expires once, and cannot be readable again before it is set.
                        ready.clear_ready();
                        return outcome.map(drop).map_err(Into::into);
                    }
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod runtime {
    use std::io;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::{Instant, sleep_until};

    #[derive(Debug)]
    pub(in crate::server) struct TimerFd(watch::Sender<Option<Instant>>);

    pub(in crate::server) struct Watched {
        set: watch::Receiver<Option<Instant>>,
        fired_at: Option<Instant>,
    }

    impl TimerFd {
        pub(in crate::server) fn new() -> io::Result<Self> {
            Ok(Self(watch::Sender::new(None)))
        }

        /// Sets the timer to expire once, after `left`.
        pub(in crate::server) fn set(&self, left: Duration) {
            self.0.send_replace(Instant::now().checked_add(left));
        }

        pub(in crate::server) fn watch(&self) -> io::Result<Watched> {
            Ok(Watched { set: self.0.subscribe(), fired_at: None })
        }
    }

    impl Watched {
        /// Waits until the timer expires.
        pub(in crate::server) async fn expired(&mut self) -> io::Result<()> {
            loop {
                let at = *self.set.borrow_and_update();
                let time = async {
                    match at {
                        Some(time) if at != self.fired_at => sleep_until(time).await,
                        _ => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = time => {
                        self.fired_at = at;
                        return Ok(());
                    }
                    changed = self.set.changed() => changed.map_err(io::Error::other)?,
                }
            }
        }
    }
}
