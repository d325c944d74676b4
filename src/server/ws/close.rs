//! Frames that the server makes, and the meaning of read errors for the connection.

use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};

use crate::core::driver::Closed;
use crate::core::outbox::End;
use crate::protocol::Text;
use crate::protocol::refusal::Refusal;

/// The space for a reason in a close frame, in bytes (RFC 6455, 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// The consequence of a read error.
pub(in crate::server) enum ReadFailure {
    /// The connection has ended without a close frame.
    Lost(Closed),
    /// The peer violated RFC 6455. The connection ends with this close code.
    Close(End),
    /// The peer violated the signaling protocol. It gets this refusal.
    Refuse(Refusal),
}

impl ReadFailure {
    /// Classifies an error of tungstenite.
    pub(in crate::server) fn of(error: &WebSocketError) -> Self {
        match error {
            WebSocketError::Capacity(CapacityError::MessageTooLong { .. }) => Self::Close(End::message_too_big()),
            WebSocketError::Utf8(_) => Self::Refuse(Refusal::InvalidJson),
            WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Self::Lost(Closed::Fin),
            WebSocketError::Protocol(_) | WebSocketError::Capacity(_) => {
                Self::Close(End::close(1002, "protocol error"))
            }
            _ => Self::Lost(Closed::Reset),
        }
    }
}

/// Makes one unfragmented text frame.
///
/// A [`Text`] is always UTF-8. `Message::text` would check that again.
pub(in crate::server) fn frame(text: Text) -> Message {
    Message::Frame(Frame::message(text.into_bytes(), OpCode::Data(Data::Text), true))
}

/// Makes a close frame. The reason is cut to the space that there is, at a character boundary.
pub(in crate::server) fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from(cut(reason)) }))
}

/// Makes the payload of a close frame, as [`close`] does.
pub(in crate::server) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), cut(reason).as_bytes()].concat()
}

/// Cuts a reason to the space that there is, at a character boundary.
fn cut(reason: &str) -> &str {
    let end = (0..=MAX_CLOSE_REASON.min(reason.len())).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    &reason[..end]
}
