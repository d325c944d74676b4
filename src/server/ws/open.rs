//! Creates the task of an upgraded connection: WebSocket settings, session, pump.

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

/// The read buffer of tungstenite in bytes, for each connection.
///
/// Its default of 128 KiB suits downloads, not 10,000 idle devices that only ping. The buffer grows for larger frames.
const READ_BUFFER: usize = 128;

/// The size up to which tungstenite batches writes, in bytes. It allocates the buffer only when it writes.
const WRITE_BUFFER: usize = 4 * 1024;

/// The future of one connection's WebSocket.
pub(in crate::server) type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Registers the peer in the hub, and returns the future that serves it.
///
/// `read_ahead` is the input that the peer sent right after its request. `now` is the time at which the upgrade was
/// accepted.
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
    // A copy, because the slice would keep hyper's buffer of 8 KiB alive.
    let read_ahead = Bytes::copy_from_slice(read_ahead);
    let socket = WebSocketStream::new(stream, read_ahead, settings);
    if peer.role == Role::Http {
        return Box::pin(async move {
            let _in_time = shared.unless_over(Box::pin(echo(socket))).await;
        });
    }
    let context = shared.context(peer);
    if let Some(device) = device {
        let (session, first) = ClientSession::of_device(context, device, now);
        let mut pump = Pump::new(shared, socket, session, now);
        pump.begin(first);
        return Box::pin(pump);
    }
    match context.peer.role {
        Role::Device => Box::pin(Pump::new(shared, socket, DeviceSession::new(context, now), now)),
        _ => Box::pin(Pump::new(shared, socket, ClientSession::new(context, now), now)),
    }
}
