//! A WebSocket that says everything back, for the protocol's own test suite (`make autobahn`): the same upgrade, the same
//! settings and the same close codes as everywhere, with nothing behind it.

use std::future::poll_fn;

use tokio_tungstenite::tungstenite::{Error, Message};

use crate::core::outbox::End;
use crate::protocol::Text;
use crate::server::ws::close::{ReadFailure, close};
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::{Received, WebSocketStream};
use crate::server::ws::transport::Transport;

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
            // The library has made an answer to a ping or a goodbye.
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
        ReadFailure::Close(_) | ReadFailure::Lost => return,
    };
    // The stream is at its end for the library; what goes out has to go out by hand.
    let _hung_up = send(&mut socket, |socket, buffer| socket.send(close(code, &reason), buffer)).await;
}

/// The next thing heard, whichever lane it came by.
async fn next<S: Transport>(socket: &mut WebSocketStream<S>) -> Option<Result<Message, Error>> {
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

/// Writes something, and has it go out.
async fn send<S, W>(socket: &mut WebSocketStream<S>, write: W) -> Result<(), Error>
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
