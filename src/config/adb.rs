//! The settings of adb connections (docs/protocol.md 5.3.19).

use std::time::Duration;

use crate::config::bounds::{MAX_COUNT, MAX_MESSAGE, above_zero, within};
use crate::config::error::ConfigError;

/// The settings of adb connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adb {
    /// Whether `/devices/{id}/adb` relays bytes to the device's adb port. Default no: adb is a shell on the device.
    pub is_on: bool,
    /// Concurrent adb connections. Default 64: each takes some 100 KiB, and more while a large message comes in.
    pub max_connections: usize,
    /// The largest message of a client on `/devices/{id}/adb`, in bytes. Default 2 MiB: adb's longest packet is 1 MiB and
    /// 24 bytes, and a client may send it as one message.
    pub max_message: usize,
    /// How long a device's adb port may take to accept a connection, and how long it may accept no byte of the data that
    /// waits for it. Default 30 s.
    pub timeout: Duration,
}

/// The defaults.
pub(super) const DEFAULT: Adb =
    Adb { is_on: false, max_connections: 64, max_message: 2 * 1024 * 1024, timeout: Duration::from_secs(30) };

impl Default for Adb {
    fn default() -> Self {
        DEFAULT
    }
}

impl Adb {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("limits.max_adb", self.max_connections, 1, MAX_COUNT)?;
        within("limits.max_adb_message", self.max_message, 128, MAX_MESSAGE)?;
        above_zero("limits.adb_timeout", Some(self.timeout))
    }
}
