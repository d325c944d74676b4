//! Sends a request to the server behind a proxy. Each has a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::failure::Failure;
use crate::config::upstream::Upstream;
use crate::server::shared::Shared;
use crate::server::ws::proxied::stream::UpstreamStream;

/// Sends a request, and returns the head of the answer. The body follows.
///
/// # Errors
/// [`Failure`], if the server gives no answer in HTTP/1.1 within `limit`.
pub(super) async fn send(
    shared: &Arc<Shared>,
    upstream: &Upstream,
    request: Request<Body>,
    limit: Duration,
) -> Result<Response<Incoming>, Failure> {
    let connected = shared.timers.timeout(upstream.timeout, dial(upstream)).await;
    let stream = connected.unwrap_or(Err(Failure::Silent(upstream.timeout)))?;
    let first = stream.first();
    let failed = |error| Failure::NoHttp(error, first.lock().clone());
    let (mut sender, connection) =
        http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // The connection ends with the body, or with the upgrade. The server stops only after that.
    let over = shared.over.clone();
    shared.tasks.spawn(async move { over.run_until_cancelled(connection.with_upgrades()).await });
    let answered = shared.timers.timeout(limit, sender.send_request(request)).await;
    match answered {
        Some(answered) => answered.map_err(failed),
        None => Err(Failure::Silent(limit)),
    }
}

/// Connects to the server: to the first of its addresses that answers.
async fn dial(upstream: &Upstream) -> Result<UpstreamStream, Failure> {
    let found: Vec<SocketAddr> =
        lookup_host((&*upstream.host, upstream.port)).await.map_err(Failure::Unreachable)?.collect();
    let stream = TcpStream::connect(&*found).await.map_err(Failure::Unreachable)?;
    // Signaling messages are small and latency matters.
    stream.set_nodelay(true).map_err(Failure::Unreachable)?;
    let Some(tls) = &upstream.tls else { return Ok(UpstreamStream::plain(stream)) };
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let stream = connector.connect(tls.name.clone(), stream).await.map_err(Failure::Tls)?;
    Ok(UpstreamStream::tls(stream))
}
