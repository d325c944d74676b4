//! The timer of an alarm. On Linux a descriptor that becomes readable (timerfd), which a runtime watches as it does sockets.

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

    /// The descriptor is closed when nobody watches it any more.
    #[derive(Debug)]
    pub(in crate::server) struct TimerFd(Arc<OwnedFd>);

    pub(in crate::server) struct Watched(AsyncFd<Arc<OwnedFd>>);

    impl TimerFd {
        pub(in crate::server) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            Ok(Self(Arc::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)))
        }

        /// Has it ring once, after so long.
        pub(in crate::server) fn set(&self, left: Duration) {
            // Zero would unset it.
            let left = left.max(Duration::from_nanos(1));
            let Ok(it_value) = Timespec::try_from(left) else { return };
            let once = Itimerspec { it_interval: Timespec::default(), it_value };
            if let Err(error) = timerfd_settime(self.0.as_fd(), TimerfdTimerFlags::empty(), &once) {
                tracing::error!("a timer cannot be set, and deadlines will be missed: {error}");
            }
        }

        #[allow(
            deprecated,
            reason = "its heir is unsafe, for the sake of types whose descriptor may change: this one's does not"
        )]
        pub(in crate::server) fn watch(&self) -> io::Result<Watched> {
            AsyncFd::with_interest(Arc::clone(&self.0), Interest::READABLE).map(Watched)
        }
    }

    impl Watched {
        /// Waits until it rings.
        pub(in crate::server) async fn expired(&mut self) -> io::Result<()> {
            loop {
                let mut ready = self.0.readable().await?;
                match rustix::io::read(self.0.get_ref().as_fd(), &mut [0; 8]) {
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    outcome => {
                        // It rings once, and can not be readable again before it is set.
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

        /// Has it ring once, after so long.
        pub(in crate::server) fn set(&self, left: Duration) {
            self.0.send_replace(Instant::now().checked_add(left));
        }

        pub(in crate::server) fn watch(&self) -> io::Result<Watched> {
            Ok(Watched { set: self.0.subscribe(), fired_at: None })
        }
    }

    impl Watched {
        /// Waits until it rings.
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
