//! One accepted connection, from the TLS handshake to its end: one task. HTTP/1.1 until it is upgraded, if it is.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::connect_info::{ConnectInfo, Upgrade};
use crate::access::connection_limits::Permit;
use crate::config::tls::subject_of;
use crate::server::http::service::Service;
use crate::server::shared::Shared;
use crate::server::time::sleep::HyperTimer;
use crate::server::ws::open::{self, BoxFuture};
use crate::server::ws::transport::Transport;

pub(super) struct Connection {
    shared: Arc<Shared>,
    service: Service,
    address: SocketAddr,
    permit: Arc<Permit>,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, service: Service, address: SocketAddr, permit: Permit) -> Self {
        Self { shared, service, address, permit: Arc::new(permit) }
    }

    /// Serves it until it ends, or the server is over.
    pub(super) fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) -> ConnectionTask {
        let (shared, permit) = (Arc::clone(&self.shared), Arc::clone(&self.permit));
        // Each boxed by itself: what a TLS handshake needs is many times what a request does.
        let opening: Opening = match tls {
            Some(tls) => Box::pin(self.speak_tls(stream, tls)),
            None => Box::pin(self.speak_http(stream, None)),
        };
        ConnectionTask::begin(shared, permit, opening)
    }

    /// The same for a connection in memory.
    pub(super) fn run_in_memory(self, stream: DuplexStream) -> ConnectionTask {
        let (shared, permit) = (Arc::clone(&self.shared), Arc::clone(&self.permit));
        ConnectionTask::begin(shared, permit, Box::pin(self.speak_http(stream, None)))
    }

    /// TLS, and HTTP within it.
    async fn speak_tls(self, stream: TcpStream, tls: TlsAcceptor) -> Option<BoxFuture> {
        let limit = self.shared.config.limits.tls_handshake_timeout;
        let handshake = self.shared.timers.timeout(limit, tls.accept(stream));
        let outcome = tokio::select! {
            biased;
            () = self.shared.stopping.cancelled() => return None,
            outcome = handshake => outcome,
        };
        match outcome {
            Some(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let certificate = shown.and_then(subject_of).map(Arc::from);
                return self.speak_http(stream, certificate).await;
            }
            Some(Err(error)) => tracing::debug!("TLS handshake with {} failed: {error}", self.address),
            None => tracing::debug!("TLS handshake with {} took too long", self.address),
        }
        None
    }

    /// HTTP, until an endpoint has agreed to an upgrade.
    async fn speak_http<S>(self, stream: S, certificate: Option<Arc<str>>) -> Option<BoxFuture>
    where
        S: Transport,
    {
        let Self { shared, service, address, permit } = self;
        let upgrade = Arc::new(Mutex::new(None));
        let connect_info = ConnectInfo { address, certificate, upgrade: Arc::clone(&upgrade), permit };
        answer_requests(&shared, &service, connect_info, stream).await;
        let Upgrade { transport, peer, device, agreed_at } = upgrade.lock().take()?;
        let Ok(parts) = transport.await.ok()?.downcast::<TokioIo<S>>() else {
            tracing::error!("an upgraded connection of {address} came back as another type");
            return None;
        };
        Some(open::open(shared, parts.io.into_inner(), &parts.read_buf, peer, device, agreed_at))
    }
}

type Opening = Pin<Box<dyn Future<Output = Option<BoxFuture>> + Send>>;

/// A connection's task, in two stages, each boxed: what it takes to open one is gone when its long life begins.
pub(super) struct ConnectionTask {
    stage: Stage,
    permit: Arc<Permit>,
}

enum Stage {
    Opening(Opening),
    /// It knows of the server's end by its outbox.
    Open(BoxFuture),
}

impl ConnectionTask {
    /// Opens it, unless others need the room or the server is over.
    fn begin(shared: Arc<Shared>, permit: Arc<Permit>, open: Opening) -> Self {
        let room = Arc::clone(&permit);
        let opening = Box::pin(async move {
            tokio::select! {
                biased;
                () = room.evicted() => None,
                opened = shared.unless_over(open) => opened.flatten(),
            }
        });
        Self { stage: Stage::Opening(opening), permit }
    }
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Opening(opening) => {
                    let Some(pump) = ready!(opening.as_mut().poll(cx)) else { return Poll::Ready(()) };
                    self.stage = Stage::Open(pump);
                    self.permit.opened();
                }
                Stage::Open(pump) => return pump.as_mut().poll(cx),
            }
        }
    }
}

async fn answer_requests<S>(shared: &Arc<Shared>, service: &Service, connect_info: ConnectInfo, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let connect_info = connect_info.clone();
        async move { Ok::<_, Infallible>(service.answer(shared, connect_info, request).await) }
    });
    let limits = &shared.config.limits;
    let mut connection = http1::Builder::new()
        .timer(HyperTimer(Arc::clone(&shared.timers)))
        .header_read_timeout(limits.request_head_timeout)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_request_head)
        // Whoever has said all it will say may still listen.
        .half_close(true)
        // Answers are short: to copy them together costs less than to have the system gather them.
        .writev(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = shared.stopping.cancelled() => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = &outcome {
        tracing::debug!("HTTP with {} ended: {error}", connect_info.address);
    }
    let answered = outcome.map_or_else(|error| error.is_parse(), |()| true);
    if let (true, Some(parts)) = (answered, connection.into_parts()) {
        tokio::select! {
            () = shared.stopping.cancelled() => {}
            _ = shared.timers.timeout(limits.close_timeout, read_out(parts.io.into_inner())) => {}
        }
    }
}

/// Reads on without listening until the peer hangs up: closing a socket with unread input resets it, and takes the
/// answer back that says what was wrong with the request.
async fn read_out(mut stream: impl AsyncRead + Unpin) {
    let mut scratch = [0; 1024];
    while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
}
