//! What whoever runs the server did wrong, or what their machine refused. Peers' mistakes are [`crate::protocol::refusal`]s.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {what}")]
pub struct ConfigError {
    /// The setting, as `limits.max_message_size`.
    pub setting: String,
    /// What is wrong with it.
    pub what: String,
}

impl ConfigError {
    /// Names the setting and what is wrong with it.
    pub fn new(setting: impl Into<String>, what: impl Into<String>) -> Self {
        Self { setting: setting.into(), what: what.into() }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A certificate or key can not be used.
    #[error("tls: {0}")]
    Tls(String),
    /// A directory for certificates, or a file in it, cannot be used or written.
    #[error("{}: {what}", path.display())]
    StateDir {
        /// The directory or the file.
        path: PathBuf,
        /// The reason, and what to do.
        what: String,
    },
    /// The address is taken, or not ours.
    #[error("can not listen on {address}: {source}")]
    Bind {
        /// Where it should have listened.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The path of a local socket can not be listened on.
    #[error("can not listen on {path}: {source}")]
    BindLocal {
        /// Where the socket should have been.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The system gave no threads or descriptors.
    #[error("can not start the runtime: {0}")]
    Runtime(io::Error),
}
