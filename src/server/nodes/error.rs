//! The reasons why another node could not be asked.

use std::io;
use std::time::Duration;

use hyper::StatusCode;

use crate::server::cluster::details::PROTOCOL;

/// The reason why a node could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum Unreachable {
    /// Its record cannot be read.
    #[error("its record in the registry has no address")]
    Details,
    /// Another process is at its address. The fingerprint is that of its certificate.
    #[error("another process is at its address")]
    Other(String),
    /// It speaks another version.
    #[error("it speaks version {0} between nodes, and this node {PROTOCOL}: run versions that fit")]
    Version(u32),
    /// It has as many clients of this node as the settings allow.
    #[error("it has as many clients of this node as max_connections allows")]
    Full,
    /// Too many connections to it wait for their turn.
    #[error("as many connections to it wait as limits.max_node_dial_queue allows")]
    Queue,
    /// It has not answered in time.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// It refused the request.
    #[error("it answered {0}")]
    Refused(StatusCode),
    /// The connection could not be made, or was lost.
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for Unreachable {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<hyper::Error> for Unreachable {
    fn from(error: hyper::Error) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Self::Failed(format!("{error}{}", cause.unwrap_or_default()))
    }
}
