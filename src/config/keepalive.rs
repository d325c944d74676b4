//! When the server drops a silent connection.

use std::time::Duration;

/// When the server drops a silent connection: half-open TCP is found within `interval + timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keepalive {
    /// The server pings a peer after this much silence. Default 10 s; `None` sends no pings.
    pub interval: Option<Duration>,
    /// How long a peer may take to answer with a pong. Default 5 s.
    pub timeout: Duration,
}

/// The defaults.
pub(super) const DEFAULT: Keepalive =
    Keepalive { interval: Some(Duration::from_secs(10)), timeout: Duration::from_secs(5) };

impl Default for Keepalive {
    fn default() -> Self {
        DEFAULT
    }
}
