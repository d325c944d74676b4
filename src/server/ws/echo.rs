//! An echo endpoint for Autobahn, the conformance suite of RFC 6455 (`make autobahn`).
//!
//! The upgrade, the settings and the close codes are those of every WebSocket of the server. There is no session.

use std::future::poll_fn;

use tokio_tungstenite::tungstenite::{Error, Message};

use crate::core::outbox::End;
use crate::protocol::Text;
use crate::server::ws::close::{ReadFailure, close};
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::{Received, WebSocketStream};
use crate::server::ws::transport::Transport;

/// Sends each message back until the peer closes or violates RFC 6455.
pub(in crate::server) async fn echo<S: Transport>(mut socket: WebSocketStream<S>) {
    let error = loop {
        match next(&mut socket).await {
            Some(Ok(Message::Text(text))) => {
                let text = Text::from(text.to_string());
                if send(&mut socket, |socket, buffer| socket.queue_text(&text, buffer)).await.is_err() {
                    return;
                }
            }
            Some(Ok(message)) if message.is_binary() => {
                if send(&mut socket, |socket, buffer| socket.send(message, buffer)).await.is_err() {
                    return;
                }
            }
            // tungstenite has queued a pong or a close frame.
            Some(Ok(_)) => {
                if send(&mut socket, |_, _| Ok(())).await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => break error,
            None => return,
        }
    };
    let (code, reason) = match ReadFailure::of(&error) {
        ReadFailure::Close(End::Close { code, reason }) => (code, reason),
        ReadFailure::Refuse(refusal) => (refusal.close_code().unwrap_or(1002), refusal.text()),
        ReadFailure::Close(_) | ReadFailure::Lost(_) => return,
    };
    // tungstenite reads no further after an error, but still sends a close frame.
    let _hung_up = send(&mut socket, |socket, buffer| socket.send(close(code, &reason), buffer)).await;
}

/// Receives the next message, from either lane.
pub(super) async fn next<S: Transport>(socket: &mut WebSocketStream<S>) -> Option<Result<Message, Error>> {
    poll_fn(|cx| {
        IoBuffer::with(|buffer| {
            let received = socket.poll_read(cx, buffer).map(|received| {
                received.map(|received| {
                    received.map(|received| match received {
                        Received::Text(text) => Message::text(text),
                        Received::Message(message) => message,
                    })
                })
            });
            socket.save_unread(buffer);
            received
        })
    })
    .await
}

/// Writes a message and flushes it.
pub(super) async fn send<S, W>(socket: &mut WebSocketStream<S>, write: W) -> Result<(), Error>
where
    S: Transport,
    W: FnOnce(&mut WebSocketStream<S>, &mut IoBuffer) -> Result<(), Error>,
{
    let mut write = Some(write);
    poll_fn(|cx| {
        IoBuffer::with(|buffer| {
            if let Some(write) = write.take() {
                write(socket, buffer)?;
            }
            socket.poll_flush(cx, buffer)
        })
    })
    .await
}
