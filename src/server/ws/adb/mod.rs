//! `WS /devices/{id}/adb`: bytes between a client and the adb port of a device (docs/protocol.md 5.3.19).
//!
//! The request is upgraded first, so that each refusal is a close frame: a browser shows no answer of HTTP.

mod relay;

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use self::relay::{Relay, stopping};
use crate::access::adb;
use crate::core::outbox::End;
use crate::core::peer::Peer;
use crate::observe::adb::AdbSeat;
use crate::observe::incidents::Incident;
use crate::protocol::DeviceId;
use crate::server::events::rounded;
use crate::server::shared::Shared;
use crate::server::ws::close;
use crate::server::ws::io_buffer::IoBuffer;
use crate::server::ws::stream::{Received, WebSocketStream};
use crate::server::ws::transport::Transport;

/// Serves one client until it, the device or the server ends the connection.
pub(super) async fn serve<S: Transport>(shared: Arc<Shared>, mut socket: WebSocketStream<S>, peer: Peer, id: DeviceId) {
    let end = match connect(&shared, &peer, &id).await {
        Ok((device, seat)) => {
            let name = id.as_str();
            tracing::info!(event = "adb_opened", device_id = name, peer = %peer, "adb of device {id:?} opened by {peer}");
            let mut relay = Relay::new(Arc::clone(&shared), socket, device, seat);
            let expired = || End::close(1008, "Authorization expired");
            let end = shared.clock.timeout_at(peer.expires, relay.run()).await.unwrap_or_else(expired);
            let (to_device, from_device) = relay.bytes();
            let (code, reason) = told(&end);
            tracing::info!(
                event = "adb_closed",
                device_id = name,
                peer = %peer,
                code,
                reason,
                duration = rounded(peer.since.elapsed().unwrap_or_default()),
                to_device,
                from_device,
                "adb of device {id:?} ended for {peer}: {end}; {to_device} bytes to the device, {from_device} from it"
            );
            socket = relay.into_client();
            end
        }
        Err(end) => {
            refused(&shared, &peer, &id, &end);
            end
        }
    };
    finish(&shared, socket, end).await;
}

/// Counts a client that is refused, and tells the logs.
fn refused(shared: &Shared, peer: &Peer, id: &DeviceId, end: &End) {
    let (code, reason) = told(end);
    tracing::warn!(
        event = "adb_refused",
        device_id = id.as_str(),
        peer = %peer,
        code,
        reason,
        "adb of device {id:?} refused for {peer}: {end}"
    );
    shared.adb.count_refused();
    if let (Some(code), Some(reason)) = (code, reason) {
        shared.audit_end(peer, Some(id.as_str()), code, reason);
    }
}

/// The code and the reason of an end, for the log.
fn told(end: &End) -> (Option<u16>, Option<&str>) {
    match end {
        End::Close { code, reason } => (Some(*code), Some(reason)),
        End::Drop | End::Reset => (None, None),
    }
}

/// Connects to the device's adb port.
async fn connect(shared: &Arc<Shared>, peer: &Peer, id: &DeviceId) -> Result<(TcpStream, AdbSeat), End> {
    let refuse = |code, reason: String| End::Close { code, reason: reason.into() };
    let Some(device) = shared.hub.find(id).filter(|device| peer.grant.covers(&device.id)) else {
        return Err(End::close(1008, "Device not found"));
    };
    let port = adb::port_of(&device, &shared.own_ports).map_err(|why| refuse(1008, why.to_string()))?;
    drop(device);
    let settings = &shared.settings().adb.clone();
    let Some(seat) = shared.adb.take_seat(settings.max_connections) else {
        shared.incidents.count(Incident::TurnedAway);
        return Err(refuse(1013, format!("Too many adb connections: at most {}", settings.max_connections)));
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let connected = tokio::select! {
        biased;
        () = shared.stopping.cancelled() => return Err(stopping()),
        connected = shared.clock.timeout(settings.timeout, TcpStream::connect(address)) => connected,
    };
    match connected {
        Some(Ok(stream)) => {
            if let Err(error) = stream.set_nodelay(true) {
                let what = "stays with Nagle's algorithm";
                tracing::debug!(
                    event = "socket_option_failed",
                    peer = %address,
                    reason = %error,
                    "the adb connection to {address} {what}: {error}"
                );
            }
            Ok((stream, seat))
        }
        Some(Err(error)) => Err(refuse(1011, format!("The device's adb port {port} cannot be reached: {error}"))),
        None => Err(refuse(1013, format!("The device's adb port {port} does not answer"))),
    }
}

/// Sends the close frame, unless one was sent, and waits for the client's. Then shuts the transport down.
async fn finish<S: Transport>(shared: &Arc<Shared>, mut socket: WebSocketStream<S>, end: End) {
    let End::Close { code, reason } = end else { return };
    let settings = shared.settings();
    let limits = &settings.limits;
    let frame = socket.can_write().then(|| close::close(code, &reason));
    // The server's stop waits for this client no longer than for all others.
    tokio::select! {
        biased;
        _ = shared.clock.timeout(limits.close_timeout, close_client(&mut socket, frame)) => {}
        () = shared.stopped_for_a_while() => {}
    }
}

/// Sends the close frame and reads the client to its end. Input is discarded.
///
/// Closing a socket with unread input resets the connection, and the client would lose the close frame.
async fn close_client<S: Transport>(socket: &mut WebSocketStream<S>, mut frame: Option<Message>) {
    let closed = poll_fn(|cx| {
        IoBuffer::with(|buffer| {
            let closed = poll_closed(socket, frame.take(), cx, buffer);
            socket.save_unread(buffer);
            closed
        })
    });
    let closed = closed.await;
    let transport = socket.transport();
    let _lost = transport.shutdown().await;
    let mut scratch = [0; 4096];
    // Without the client's close frame, the WebSocket was broken, and the client may still send.
    while !closed && matches!(transport.read(&mut scratch).await, Ok(1..)) {}
}

/// Polls for the client's close frame, and sends the server's before. Returns false if the connection ended otherwise.
fn poll_closed<S: Transport>(
    socket: &mut WebSocketStream<S>,
    frame: Option<Message>,
    cx: &mut Context<'_>,
    buffer: &mut IoBuffer,
) -> Poll<bool> {
    let sent = frame.map_or(Ok(()), |frame| socket.send(frame, buffer));
    let flushed = socket.poll_flush(cx, buffer);
    if sent.is_err() || matches!(flushed, Poll::Ready(Err(_))) {
        return Poll::Ready(false);
    }
    loop {
        match ready!(socket.poll_read(cx, buffer)) {
            // The answer to a close frame that came first is written, and waits to be flushed.
            Some(Ok(Received::Message(Message::Close(_)))) => return socket.poll_flush(cx, buffer).map(|_| true),
            Some(Ok(_)) => {}
            None => return flushed.map(|_| !socket.can_read()),
            Some(Err(_)) => return Poll::Ready(false),
        }
    }
}
