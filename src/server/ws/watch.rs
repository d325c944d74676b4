//! The control connection between two nodes: pings both ways, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::server::shared::Shared;
use crate::server::ws::echo::{next, send};
use crate::server::ws::stream::WebSocketStream;
use crate::server::ws::transport::Transport;

/// The pause between two pings.
const PING: Duration = Duration::from_secs(2);

/// The silence after which the other node counts as gone. A process that was paused for longer was given up, too.
const SILENCE: Duration = Duration::from_secs(5);

/// Pings the other node until it is silent, closes, or the server stops. Then cancels the token, with which the
/// connections of clients between the nodes end.
pub(super) async fn watch<S: Transport>(shared: Arc<Shared>, mut socket: WebSocketStream<S>, token: CancellationToken) {
    let _cancelled = token.clone().drop_guard();
    let (mut heard, mut ping_at) = (Instant::now(), Instant::now());
    loop {
        let now = Instant::now();
        if now >= heard + SILENCE {
            return;
        }
        let ping = async |socket: &mut WebSocketStream<S>, message| {
            // A node that takes nothing is found by its silence.
            let written = send(socket, |socket, buffer| socket.send(message, buffer));
            matches!(shared.timers.timeout(SILENCE, written).await, Some(Ok(())))
        };
        if now >= ping_at {
            ping_at = now + PING;
            if !ping(&mut socket, Message::Ping(bytes::Bytes::new())).await {
                return;
            }
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = shared.stopping.cancelled() => return,
            received = next(&mut socket) => match received {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    // tungstenite has queued a pong.
                    if send(&mut socket, |_, _| Ok(())).await.is_err() {
                        return;
                    }
                }
            },
            () = shared.timers.sleep_until(ping_at.min(heard + SILENCE)) => {}
        }
    }
}
