//! Time: the clock that a test can turn, timers that wake tasks, and a sleep as a future.

pub(in crate::server) mod clock;
pub(in crate::server) mod sleep;
mod timerfd;
pub(in crate::server) mod timers;
