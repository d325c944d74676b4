//! The least and the most that each limit may be.
//!
//! The upper ends keep a mistake from ending the process: the server adds times to its clock and sizes to buffers.

use std::time::Duration;

use crate::config::error::ConfigError;

/// The longest time that a setting may have: about 30 years.
pub const MAX_TIME: Duration = Duration::from_secs(1_000_000_000);

/// The shortest time between two checks of files.
pub const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// The most connections, peers or messages.
pub const MAX_COUNT: usize = 1 << 20;

/// The largest message.
pub const MAX_MESSAGE: usize = 64 << 20;

/// The most bytes of messages that the server keeps at one place.
pub const MAX_KEPT: usize = 1 << 30;

/// Checks that a number is in its range.
pub(super) fn within(setting: &'static str, value: usize, least: usize, most: usize) -> Result<(), ConfigError> {
    if value < least {
        return Err(ConfigError::new(setting, format!("must be at least {least}, got {value}")));
    }
    if value > most {
        return Err(ConfigError::new(setting, format!("must be at most {most}, got {value}")));
    }
    Ok(())
}

/// Checks that a time is neither 0 nor too long. `None` is no limit.
pub(super) fn above_zero(setting: &'static str, time: Option<Duration>) -> Result<(), ConfigError> {
    if time == Some(Duration::ZERO) {
        return Err(ConfigError::new(setting, "must be more than 0 seconds, got 0"));
    }
    at_most(setting, time)
}

/// Checks that a time is neither too short nor too long. `None` is no limit.
pub(super) fn at_least(setting: &'static str, time: Option<Duration>, least: Duration) -> Result<(), ConfigError> {
    match time {
        Some(time) if time < least => {
            let (least, got) = (least.as_secs_f64(), time.as_secs_f64());
            Err(ConfigError::new(setting, format!("must be at least {least} seconds, got {got}")))
        }
        _ => at_most(setting, time),
    }
}

/// Checks that a time is not too long. `None` is no limit.
pub(super) fn at_most(setting: &'static str, time: Option<Duration>) -> Result<(), ConfigError> {
    match time {
        Some(time) if time > MAX_TIME => {
            let (most, got) = (MAX_TIME.as_secs(), time.as_secs_f64());
            Err(ConfigError::new(setting, format!("must be at most {most} seconds, got {got}")))
        }
        _ => Ok(()),
    }
}
