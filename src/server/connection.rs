//! One accepted connection, from the TLS handshake to its end: one task. HTTP/1.1 until it is upgraded, if it is.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::{Shared, websocket};
use crate::peer::Peer;

/// What an endpoint leaves behind when it agrees to an upgrade; the connection's task goes on with it.
pub(super) struct Upgrade {
    pub(super) transport: OnUpgrade,
    pub(super) peer: Peer,
}

/// Travels with each request, so that endpoints know where it came from and where to leave an [`Upgrade`].
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    pub(super) upgrade: Arc<Mutex<Option<Upgrade>>>,
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    router: Router,
    address: SocketAddr,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, router: Router, address: SocketAddr) -> Self {
        Self { shared, router, address }
    }

    /// Serves it until it ends, or the server is over.
    pub(super) async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            biased;
            () = shared.over.cancelled() => {}
            () = self.serve(stream, tls) => {}
        }
    }

    async fn serve(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Signaling is small messages that somebody waits for.
        drop(stream.set_nodelay(true));
        let Some(tls) = tls else { return self.speak_http(stream).await };
        let handshake = timeout(self.shared.config.limits.tls_handshake_timeout, Box::pin(tls.accept(stream)));
        let outcome = tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => return,
            outcome = handshake => outcome,
        };
        match outcome {
            Ok(Ok(stream)) => self.speak_http(stream).await,
            Ok(Err(error)) => tracing::debug!("TLS handshake with {} failed: {error}", self.address),
            Err(_) => tracing::debug!("TLS handshake with {} took too long", self.address),
        }
    }

    async fn speak_http<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { shared, router, address } = self;
        let upgrade = Arc::new(Mutex::new(None));
        // Boxed, so that hyper's state is gone when the WebSocket's life begins.
        Box::pin(answer_requests(&shared, router, Origin { address, upgrade: Arc::clone(&upgrade) }, stream)).await;
        let Some(Upgrade { transport, peer }) = upgrade.lock().take() else { return };
        drop(upgrade);
        let Ok(upgraded) = transport.await else { return };
        match upgraded.downcast::<TokioIo<S>>() {
            Ok(parts) => websocket::serve(shared, parts.io.into_inner(), parts.read_buf, peer).await,
            Err(_) => tracing::error!("an upgraded connection of {address} came back as another type"),
        }
    }
}

async fn answer_requests<S>(shared: &Arc<Shared>, router: Router, origin: Origin, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(origin.clone());
        router.clone().call(request)
    });
    let limits = &shared.config.limits;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_head_timeout)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_request_head)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shared.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!("HTTP with {} ended: {error}", origin.address);
    }
}
