//! How a connection ends from the server's side.

use std::borrow::Cow;

/// How a connection ends from this side, after the queued messages were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With a close frame.
    Close {
        /// The close code (RFC 6455, 7.4.1).
        code: u16,
        /// For people. A close frame has room for the first 123 bytes.
        reason: Cow<'static, str>,
    },
    /// By dropping the transport: the peer does not answer.
    Drop,
    /// By resetting the transport (TCP RST): a fault.
    Reset,
}

impl End {
    /// A close frame with this code and reason.
    pub fn close(code: u16, reason: &'static str) -> Self {
        Self::Close { code, reason: Cow::Borrowed(reason) }
    }

    /// The end of a peer that sends more than a message may have.
    pub fn message_too_big() -> Self {
        Self::close(1009, "message too big")
    }
}

/// For people: `1008 Not authorized`.
impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Close { code, reason } => write!(f, "{code} {reason}"),
            Self::Drop => f.write_str("dropped"),
            Self::Reset => f.write_str("reset"),
        }
    }
}
