//! Frames that the server makes, and what a failure to read means for the connection.

use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};

use crate::core::outbox::End;
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;

/// What a close frame has room for, in bytes (RFC 6455, 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// What a failure to read means.
pub(in crate::server) enum ReadFailure {
    /// The connection is gone.
    Lost,
    /// The peer broke the rules of RFC 6455: the code says it.
    Close(End),
    /// The peer broke the rules of the protocol: it is told.
    Refuse(Refusal),
}

impl ReadFailure {
    pub(in crate::server) fn of(error: &WebSocketError) -> Self {
        match error {
            WebSocketError::Capacity(CapacityError::MessageTooLong { .. }) => Self::Close(End::message_too_big()),
            WebSocketError::Utf8(_) => Self::Refuse(Refusal::InvalidJson),
            WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Lost,
            WebSocketError::Protocol(_) | WebSocketError::Capacity(_) => {
                Self::Close(End::close(1002, "protocol error"))
            }
            _ => Self::Lost,
        }
    }
}

/// One unfragmented text frame. A `Text` is UTF-8 by its making; `Message::text` would check that again.
pub(in crate::server) fn frame(text: Text) -> Message {
    Message::Frame(Frame::message(text.into_bytes(), OpCode::Data(Data::Text), true))
}

/// A close frame, its reason cut to what has room.
pub(in crate::server) fn close(code: u16, reason: &str) -> Message {
    let end = (0..=MAX_CLOSE_REASON.min(reason.len())).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    Message::Close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from(&reason[..end]) }))
}
