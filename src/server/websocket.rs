//! From an upgraded connection to a pump, and what goes into its frames. Knows tungstenite's ways, no session's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message, Utf8Bytes};

use super::Shared;
use super::connection::unless_over;
use super::echo::echo;
use super::frames::Frames;
use super::pump::Pump;
use super::transport::Transport;
use crate::outbox::End;
use crate::peer::{Peer, Role};
use crate::protocol::{DeviceId, Text};
use crate::refusal::Refusal;
use crate::session::{ClientSession, DeviceSession};

/// What each connection's library has to read into, in bytes: its 128 KiB are made for downloads, not for 10,000 idle
/// devices whose pings are all it reads. It grows for what is larger.
const READ_BUFFER: usize = 128;

/// What the library writes is put together up to this size, in bytes. Nothing is kept for that.
const WRITE_BUFFER: usize = 4 * 1024;

/// What a close frame has room for, in bytes (RFC 6455, 5.5).
const MAX_CLOSE_REASON: usize = 123;

/// The life of one WebSocket.
pub(super) type Pumping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins with an upgraded connection: lets the peer into the hub, and returns the future that serves it until it
/// ends. `read_ahead` is what the peer sent right after its request.
pub(super) fn open<S>(
    shared: Arc<Shared>,
    stream: S,
    read_ahead: &Bytes,
    peer: Peer,
    device: Option<DeviceId>,
) -> Pumping
where
    S: Transport,
{
    let limits = &shared.config.limits;
    let settings = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(limits.max_message_size))
        .max_frame_size(Some(limits.max_message_size));
    // Copied: it would keep hyper's buffer of 8 KiB for as long as it is there.
    let read_ahead = Bytes::copy_from_slice(read_ahead);
    let socket = Frames::new(stream, read_ahead, settings);
    if peer.role == Role::Http {
        return Box::pin(async move {
            let _in_time = unless_over(&shared, Box::pin(echo(socket))).await;
        });
    }
    let context = shared.context(peer);
    let now = shared.clock.now();
    if let Some(device) = device {
        let (session, first) = ClientSession::of_device(context.clone(), device, now);
        let mut pump = Pump::new(shared, socket, &context, session);
        pump.begin(first, now);
        return Box::pin(pump);
    }
    match context.peer.role {
        Role::Device => Box::pin(Pump::new(shared, socket, &context.clone(), DeviceSession::new(context, now))),
        _ => Box::pin(Pump::new(shared, socket, &context.clone(), ClientSession::new(context, now))),
    }
}

/// The end of a peer that says too much at a time.
pub(super) fn too_big() -> End {
    End::close(1009, "message too big")
}

/// What a failure to read means.
pub(super) enum Fault {
    /// The connection is gone.
    Lost,
    /// The peer broke the rules of RFC 6455: the code says it.
    Close(End),
    /// The peer broke the rules of the protocol: it is told.
    Refuse(Refusal),
}

impl Fault {
    pub(super) fn of(error: &WebSocketError) -> Self {
        match error {
            WebSocketError::Capacity(CapacityError::MessageTooLong { .. }) => Self::Close(too_big()),
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
pub(super) fn frame(text: Text) -> Message {
    Message::Frame(Frame::message(text.into_bytes(), OpCode::Data(Data::Text), true))
}

/// A close frame, its reason cut to what has room.
pub(super) fn close(code: u16, reason: &str) -> Message {
    let end = (0..=MAX_CLOSE_REASON.min(reason.len())).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
    Message::Close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from(&reason[..end]) }))
}
