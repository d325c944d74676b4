//! Errors of the configuration and of the start of a server. Errors that a peer can hear are
//! [`crate::protocol::refusal`]s.

use std::io;
use std::path::PathBuf;

/// A setting has an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {what}")]
pub struct ConfigError {
    /// The name of the setting, for example `limits.max_message_size`.
    pub setting: String,
    /// The rule that the value breaks, and the value.
    pub what: String,
}

impl ConfigError {
    /// Creates an error for this setting, with this explanation.
    pub fn new(setting: impl Into<String>, what: impl Into<String>) -> Self {
        Self { setting: setting.into(), what: what.into() }
    }
}

/// The reason why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting has an invalid value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or key cannot be used or created.
    #[error("tls: {0}")]
    Tls(String),
    /// The state directory, or a file in it, cannot be used or written.
    #[error("{}: {what}", path.display())]
    StateDir {
        /// The directory or the file.
        path: PathBuf,
        /// The reason and the fix.
        what: String,
    },
    /// The address is in use, or not an address of this machine, or a socket cannot be created at the path.
    #[error("{setting}: cannot listen on {address}: {source}")]
    Bind {
        /// The setting that has the address: `host, port`, `listen`, `metrics`, `device_socket` or `control_socket`.
        setting: &'static str,
        /// The address or the path, as the setting has it.
        address: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The system refused a thread or a file descriptor.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}
