//! From an upgraded connection to a pump, and what goes into its frames. Knows tungstenite's ways, no session's.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::core::peer::{Peer, Role};
use crate::core::session::{ClientSession, DeviceSession};
use crate::protocol::DeviceId;
use crate::server::shared::Shared;
use crate::server::ws::echo::echo;
use crate::server::ws::pump::Pump;
use crate::server::ws::stream::WebSocketStream;
use crate::server::ws::transport::Transport;

/// What each connection's library has to read into, in bytes: its 128 KiB are made for downloads, not for 10,000 idle
/// devices whose pings are all it reads. It grows for what is larger.
const READ_BUFFER: usize = 128;

/// What the library writes is put together up to this size, in bytes. Nothing is kept for that.
const WRITE_BUFFER: usize = 4 * 1024;

/// The life of one WebSocket.
pub(in crate::server) type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Begins with an upgraded connection: lets the peer into the hub, and returns the future that serves it until it
/// ends. `read_ahead` is what the peer sent right after its request, `now` is when the upgrade was agreed to.
pub(in crate::server) fn open<S>(
    shared: Arc<Shared>,
    stream: S,
    read_ahead: &Bytes,
    peer: Peer,
    device: Option<DeviceId>,
    now: Instant,
) -> BoxFuture
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
    let socket = WebSocketStream::new(stream, read_ahead, settings);
    if peer.role == Role::Http {
        return Box::pin(async move {
            let _in_time = shared.unless_over(Box::pin(echo(socket))).await;
        });
    }
    let context = shared.context(peer);
    if let Some(device) = device {
        let (session, first) = ClientSession::of_device(context.clone(), device, now);
        let mut pump = Pump::new(shared, socket, &context, session, now);
        pump.begin(first, now);
        return Box::pin(pump);
    }
    match context.peer.role {
        Role::Device => Box::pin(Pump::new(shared, socket, &context.clone(), DeviceSession::new(context, now), now)),
        _ => Box::pin(Pump::new(shared, socket, &context.clone(), ClientSession::new(context, now), now)),
    }
}
