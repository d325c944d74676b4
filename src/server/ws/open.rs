//! Creates the task of an upgraded connection: WebSocket settings, session, pump.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_util::sync::CancellationToken;

use crate::core::peer::{Peer, Role};
use crate::core::session::{ClientSession, DeviceSession, Session, Step, UpstreamSession};
use crate::observe::cluster::Direction;
use crate::protocol::DeviceId;
use crate::server::shared::Shared;
use crate::server::ws::adb;
use crate::server::ws::echo::echo;
use crate::server::ws::proxied::{self, Proxied};
use crate::server::ws::pump::Pump;
use crate::server::ws::stream::WebSocketStream;
use crate::server::ws::transport::Transport;
use crate::server::ws::watch::watch;

/// The read buffer of tungstenite in bytes, for each connection.
///
/// Its default of 128 KiB suits downloads, not 10,000 idle devices that only ping. The buffer grows for larger frames.
const READ_BUFFER: usize = 128;

/// The size up to which tungstenite batches writes, in bytes. It allocates the buffer only when it writes.
const WRITE_BUFFER: usize = 4 * 1024;

/// The bytes by which the envelope of a message between nodes may exceed the longest payload.
const MAX_ENVELOPE: usize = 1024;

/// The purpose of a WebSocket, by its endpoint.
#[derive(Debug, Clone)]
pub(in crate::server) enum Purpose {
    /// Messages of a device or a client, by the peer's role.
    Signaling,
    /// Messages of a client whose request names the device (docs/protocol.md 5.3.7).
    SignalingWith(DeviceId),
    /// Bytes to and from the adb port of a device (docs/protocol.md 5.3.19).
    Adb(DeviceId),
    /// Bytes to and from another server, which are passed on unchanged.
    Proxied(Proxied),
    /// Each message is sent back, for Autobahn.
    Echo,
    /// Messages of a client of another node.
    OfNode {
        /// The device of the client.
        device: DeviceId,
        /// Cancelled when the other node is lost.
        lost: CancellationToken,
    },
    /// Pings of another node. The token is cancelled when it is lost.
    Watch(CancellationToken),
}

/// The future of one connection's WebSocket.
pub(in crate::server) type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The WebSocket of an upgraded connection.
pub(in crate::server) enum Opened<S> {
    /// The connection ends with it.
    Last(BoxFuture),
    /// A client of another node. Resolves to the transport if that node may send its next request there.
    OfNode(Pin<Box<dyn Future<Output = Option<S>> + Send>>),
}

/// Registers the peer in the hub, and returns the future that serves it.
///
/// `read_ahead` is the input that the peer sent right after its request. `now` is the time at which the upgrade was
/// accepted.
pub(in crate::server) fn open<S>(
    shared: Arc<Shared>,
    stream: S,
    read_ahead: &Bytes,
    peer: Peer,
    purpose: Purpose,
    now: Instant,
) -> Opened<S>
where
    S: Transport,
{
    if let Purpose::Proxied(proxied) = purpose {
        let read_ahead = Bytes::copy_from_slice(read_ahead);
        return Opened::Last(until_over(shared, |shared| proxied::serve(shared, stream, read_ahead, peer, proxied)));
    }
    let in_effect = shared.settings();
    let is_adb = matches!(purpose, Purpose::Adb(_));
    let max_message = if is_adb { in_effect.adb.max_message } else { in_effect.limits.max_message_size };
    let socket = socket(stream, read_ahead, max_message);
    Opened::Last(match purpose {
        Purpose::Watch(token) => until_over(shared, |shared| watch(shared, socket, token)),
        Purpose::OfNode { device, lost } => {
            return Opened::OfNode(Box::pin(of_node(shared, socket, peer, device, lost, now)));
        }
        Purpose::Echo => until_over(shared, |_| echo(socket)),
        Purpose::Adb(id) => until_over(shared, |shared| adb::serve(shared, socket, peer, id)),
        Purpose::SignalingWith(device) => {
            let (session, first) = ClientSession::of_device(shared.context(peer), device, now);
            let mut pump = Pump::new(shared, socket, session, now);
            pump.begin(first);
            Box::pin(pump)
        }
        Purpose::Signaling | Purpose::Proxied(_) => signaling(shared, socket, peer, now),
    })
}

/// Serves a client of another node, until that node is `lost`. Returns the transport if it can be used again.
async fn of_node<S: Transport>(
    shared: Arc<Shared>,
    socket: WebSocketStream<S>,
    peer: Peer,
    device: DeviceId,
    lost: CancellationToken,
    now: Instant,
) -> Option<S> {
    let (session, first) = ClientSession::of_node(shared.context(peer), device, now);
    let _counted = shared.cluster.as_ref().map(|cluster| cluster.counts.enter(Direction::In));
    let mut pump = Pump::between_nodes(shared, socket, session, now);
    pump.begin(first);
    until_lost(pump, &lost).await
}

/// A WebSocket on a stream, on which `read_ahead` has come already.
fn socket<S: Transport>(stream: S, read_ahead: &Bytes, max_message: usize) -> WebSocketStream<S> {
    let settings = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(max_message))
        .max_frame_size(Some(max_message));
    // A copy, because the slice would keep hyper's buffer of 8 KiB alive.
    WebSocketStream::new(stream, Bytes::copy_from_slice(read_ahead), settings)
}

/// The future of a connection to another node, for one client of this one. It ends when the node is `lost`. Gives the
/// transport back if it can be used again.
pub(in crate::server) fn upstream<S: Transport>(
    shared: Arc<Shared>,
    stream: S,
    read_ahead: &Bytes,
    session: UpstreamSession,
    lost: CancellationToken,
    give_back: impl FnOnce(S) + Send + 'static,
) -> BoxFuture {
    let max_message = shared.settings().limits.max_message_size.saturating_add(MAX_ENVELOPE);
    let (socket, now) = (socket(stream, read_ahead, max_message), shared.clock.now());
    let mut pump = Pump::between_nodes(shared, socket, session, now);
    pump.begin(Step::Done);
    Box::pin(async move {
        if let Some(transport) = until_lost(pump, &lost).await {
            give_back(transport);
        }
    })
}

/// The future of the control connection to another node. It cancels the token when the node is lost.
pub(in crate::server) fn control<S: Transport>(
    shared: Arc<Shared>,
    stream: S,
    read_ahead: &Bytes,
    token: CancellationToken,
) -> BoxFuture {
    let socket = socket(stream, read_ahead, shared.settings().limits.max_message_size);
    until_over(shared, |shared| watch(shared, socket, token))
}

/// Runs a pump until the connection ends, or another node is lost. Its session then leaves. Returns the transport if it
/// can be used again.
async fn until_lost<S, P>(mut pump: Pump<S, P>, lost: &CancellationToken) -> Option<S>
where
    S: Transport,
    P: Session + Unpin,
{
    tokio::select! {
        biased;
        () = &mut pump => pump.into_transport(),
        () = lost.cancelled() => None,
    }
}

/// The future of a peer whose first message says which device it is, or which it wants.
fn signaling<S: Transport>(shared: Arc<Shared>, socket: WebSocketStream<S>, peer: Peer, now: Instant) -> BoxFuture {
    let context = shared.context(peer);
    match context.peer.role {
        Role::Device => Box::pin(Pump::new(shared, socket, DeviceSession::new(context, now), now)),
        _ => Box::pin(Pump::new(shared, socket, ClientSession::new(context, now), now)),
    }
}

/// A task that ends when the time for closing handshakes is over.
fn until_over<F>(shared: Arc<Shared>, serve: impl FnOnce(Arc<Shared>) -> F) -> BoxFuture
where
    F: Future<Output = ()> + Send + 'static,
{
    let future = Box::pin(serve(Arc::clone(&shared)));
    Box::pin(async move {
        let _in_time = shared.unless_over(future).await;
    })
}
