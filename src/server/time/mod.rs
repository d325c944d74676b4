//! Time: a clock that a test can control, timers that wake tasks, and a sleep future.

pub(in crate::server) mod clock;
pub(in crate::server) mod sleep;
mod timerfd;
pub(in crate::server) mod timers;
