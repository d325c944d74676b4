//! The end of a connection, decided by the server.

use std::borrow::Cow;

/// The way in which the server ends a connection, after the queued messages were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With a close frame.
    Close {
        /// Close code (RFC 6455, 7.4.1).
        code: u16,
        /// Reason, for people. A close frame carries its first 123 bytes.
        reason: Cow<'static, str>,
    },
    /// By dropping the transport, since the peer does not answer.
    Drop,
    /// By resetting the transport (TCP RST): a fault.
    Reset,
}

impl End {
    /// Creates a close frame with this code and reason.
    pub fn close(code: u16, reason: &'static str) -> Self {
        Self::Close { code, reason: Cow::Borrowed(reason) }
    }

    /// Returns the end of a peer that does not read (docs/protocol.md 4.3.10).
    pub fn slow_consumer() -> Self {
        Self::close(1013, "slow consumer")
    }

    /// Returns the end for a peer whose message is too large (docs/protocol.md 4.3.7).
    pub fn message_too_big() -> Self {
        Self::close(1009, "message too big")
    }
}

/// Formats it for people, for example `1008 Not authorized`.
impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Close { code, reason } => write!(f, "{code} {reason}"),
            Self::Drop => f.write_str("dropped"),
            Self::Reset => f.write_str("reset"),
        }
    }
}
