//! A WebSocket that says everything back, for the protocol's own test suite (`make autobahn`): the same upgrade, the same
//! settings and the same close codes as everywhere, with nothing behind it.

use futures_util::{SinkExt, StreamExt};

use super::frames::Frames;
use super::transport::Transport;
use super::websocket::{Fault, close};
use crate::outbox::End;

pub(super) async fn echo<S: Transport>(mut socket: Frames<S>) {
    let error = loop {
        match socket.next().await {
            Some(Ok(message)) if message.is_text() || message.is_binary() => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            // The library has made an answer to a ping or a goodbye.
            Some(Ok(_)) => {
                if socket.flush().await.is_err() {
                    return;
                }
            }
            Some(Err(error)) => break error,
            None => return,
        }
    };
    let (code, reason) = match Fault::of(&error) {
        Fault::Close(End::Close { code, reason }) => (code, reason),
        Fault::Refuse(refusal) => (refusal.close_code().unwrap_or(1002), refusal.text()),
        Fault::Close(_) | Fault::Lost => return,
    };
    // The stream is at its end for the library; what goes out has to go out by hand.
    let _hung_up = socket.send(close(code, &reason)).await;
}
