//! A WebSocket that says everything back, for the protocol's own test suite (`make autobahn`): the same upgrade, the same
//! settings and the same close codes as everywhere, with nothing behind it.

use std::future::poll_fn;

use tokio_tungstenite::tungstenite::{Error, Message};

use crate::core::outbox::End;
use crate::protocol::Text;
use crate::server::ws::close::{Fault, close};
use crate::server::ws::io_buffer::Page;
use crate::server::ws::stream::{Frames, Heard};
use crate::server::ws::transport::Transport;

pub(in crate::server) async fn echo<S: Transport>(mut socket: Frames<S>) {
    let error = loop {
        match next(&mut socket).await {
            Some(Ok(Message::Text(text))) => {
                let text = Text::from(text.to_string());
                if send(&mut socket, |socket, page| socket.say(&text, page)).await.is_err() {
                    return;
                }
            }
            Some(Ok(message)) if message.is_binary() => {
                if send(&mut socket, |socket, page| socket.send(message, page)).await.is_err() {
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
    let (code, reason) = match Fault::of(&error) {
        Fault::Close(End::Close { code, reason }) => (code, reason),
        Fault::Refuse(refusal) => (refusal.close_code().unwrap_or(1002), refusal.text()),
        Fault::Close(_) | Fault::Lost => return,
    };
    // The stream is at its end for the library; what goes out has to go out by hand.
    let _hung_up = send(&mut socket, |socket, page| socket.send(close(code, &reason), page)).await;
}

/// The next thing heard, whichever lane it came by.
async fn next<S: Transport>(socket: &mut Frames<S>) -> Option<Result<Message, Error>> {
    poll_fn(|cx| {
        Page::lend(|page| {
            let heard = socket.poll_read(cx, page).map(|heard| {
                heard.map(|heard| {
                    heard.map(|heard| match heard {
                        Heard::Text(text) => Message::text(text),
                        Heard::Message(message) => message,
                    })
                })
            });
            socket.keep(page);
            heard
        })
    })
    .await
}

/// Writes something, and has it go out.
async fn send<S, W>(socket: &mut Frames<S>, write: W) -> Result<(), Error>
where
    S: Transport,
    W: FnOnce(&mut Frames<S>, &mut Page) -> Result<(), Error>,
{
    let mut write = Some(write);
    poll_fn(|cx| {
        Page::lend(|page| {
            if let Some(write) = write.take() {
                write(socket, page)?;
            }
            socket.poll_flush(cx, page)
        })
    })
    .await
}
