//! One accepted connection in one task: TLS handshake, HTTP/1.1, then a WebSocket if a request is upgraded.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connect_info::{ConnectInfo, Upgrade};
use crate::access::connection_limits::Permit;
use crate::access::origin_policy::Scheme;
use crate::access::request_rates::ConnectionRequests;
use crate::config::certificates::fingerprint;
use crate::config::tls::subject_of;
use crate::observe::request_counts::RequestCounts;
use crate::observe::timings::{Handshake, since};
use crate::server::catch_panic::peer_name;
use crate::server::http::service::{self, Service};
use crate::server::peer_stream::PeerStream;
use crate::server::shared::Shared;
use crate::server::time::sleep::HyperTimer;
use crate::server::tls_stream::TlsStream;
use crate::server::ws::open;
use crate::server::ws::transport::Transport;

/// A TCP connection after its TLS handshake.
type TlsTransport = TlsStream<PeerStream<TcpStream>>;

/// An accepted connection that has not been served yet.
pub(super) struct Connection {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// Answers the requests of this connection.
    service: Service,
    /// The peer's address; `None` on a Unix socket.
    address: Option<SocketAddr>,
    /// The place of this connection among those that the limits allow.
    permit: Arc<Permit>,
    /// TLS between nodes, on the listener for them.
    nodes: Option<Arc<ServerConfig>>,
    /// Whether it has had a request, whose WebSocket has ended.
    was_asked: bool,
}

impl Connection {
    /// Creates the connection. It does no I/O.
    pub(super) fn new(shared: Arc<Shared>, service: Service, address: Option<SocketAddr>, permit: Permit) -> Self {
        Self { shared, service, address, permit: Arc::new(permit), nodes: None, was_asked: false }
    }

    /// Makes it a connection of another node, with this TLS.
    pub(super) fn between_nodes(self, tls: Arc<ServerConfig>) -> Self {
        Self { nodes: Some(tls), ..self }
    }

    /// Returns the task that serves the connection until it ends or the server terminates it.
    pub(super) fn run(self, stream: TcpStream, is_tls: bool) -> ConnectionTask {
        let (shared, permit) = (Arc::clone(&self.shared), Arc::clone(&self.permit));
        let stream = PeerStream::new(stream, &shared, &permit);
        // Each branch is boxed by itself: a TLS handshake needs many times the memory of a request.
        let opening: Opening = if is_tls {
            Box::pin(self.speak_tls(stream))
        } else {
            Box::pin(self.speak_http(stream, Scheme::Http, None))
        };
        ConnectionTask::begin(shared, permit, opening)
    }

    /// Returns the same task for a connection in memory or over a Unix socket, which has no TLS.
    pub(super) fn run_plain<S>(self, stream: S) -> ConnectionTask
    where
        PeerStream<S>: Transport,
    {
        let (shared, permit) = (Arc::clone(&self.shared), Arc::clone(&self.permit));
        let stream = PeerStream::new(stream, &shared, &permit);
        ConnectionTask::begin(shared, permit, Box::pin(self.speak_http(stream, Scheme::Http, None)))
    }

    /// Performs the TLS handshake, then serves HTTP.
    async fn speak_tls(self, stream: PeerStream<TcpStream>) -> Option<Opened> {
        let outcome = tokio::select! {
            biased;
            outcome = self.shake_hands(stream) => outcome,
            () = self.shared.stopped_for_a_while() => return None,
        };
        match outcome {
            Some(Ok(stream)) => {
                let shown = stream.peer_certificates().and_then(<[_]>::first);
                // Nodes know each other by their fingerprints.
                let name = |shown| if self.nodes.is_some() { Some(fingerprint(shown)) } else { subject_of(shown) };
                let certificate = shown.and_then(name).map(Arc::from);
                return self.speak_http(stream, Scheme::Https, certificate).await;
            }
            Some(Err(error)) => {
                let peer = peer_name(self.address);
                tracing::debug!(event = "tls_failed", peer, reason = %error, "TLS handshake with {peer} failed: {error}");
            }
            None => {
                let peer = peer_name(self.address);
                tracing::debug!(
                    event = "tls_failed",
                    peer,
                    reason = "took too long",
                    "TLS handshake with {peer} took too long"
                );
            }
        }
        None
    }

    /// Waits for the first bytes and for a turn, then performs the TLS handshake. `None` if the peer takes too long.
    ///
    /// The timeout begins with the turn: the time in which the server is busy with other handshakes does not count. A
    /// handshake that outlasts its turn goes on beside the next ones, so slow peers hold up no other. The certificate is
    /// the one that is in effect at the turn.
    async fn shake_hands(&self, stream: PeerStream<TcpStream>) -> Option<io::Result<TlsTransport>> {
        let (timers, settings) = (&self.shared.timers, self.shared.settings());
        let limits = &settings.limits;
        if let Err(error) = timers.timeout(limits.tls_handshake_timeout, stream.inner().readable()).await? {
            return Some(Err(error));
        }
        let began = self.shared.clock.now();
        self.permit.busy();
        let turn = settings.handshakes.acquire().await;
        let of_peers = || Some(self.shared.settings().tls.as_ref()?.server_config());
        let tls = self.nodes.clone().or_else(of_peers)?;
        self.permit.waits(Instant::now());
        let mut handshake = pin!(timers.timeout(limits.tls_handshake_timeout, TlsStream::accept(tls, stream)));
        let outcome = tokio::select! {
            biased;
            outcome = &mut handshake => outcome,
            () = timers.sleep(limits.handshake_turn) => {
                drop(turn);
                handshake.await
            }
        };
        if matches!(outcome, Some(Ok(_))) {
            self.shared.timings.observe_handshake(Handshake::Tls, since(began, self.shared.clock.now()));
        }
        outcome
    }

    /// Serves HTTP until an endpoint accepts an upgrade. Returns the future that serves the WebSocket.
    async fn speak_http<S>(self, stream: S, scheme: Scheme, certificate: Option<Arc<str>>) -> Option<Opened>
    where
        S: Transport,
    {
        let Self { shared, service, address, permit, nodes, was_asked } = self;
        let upgrade = Arc::new(Mutex::new(None));
        let requests = Arc::new(ConnectionRequests::new(&shared.settings().limits.http, Instant::now()));
        let upgrade_slot = Arc::clone(&upgrade);
        let connect_info = ConnectInfo {
            address,
            is_forwarded: false,
            scheme,
            host: None,
            certificate: certificate.clone(),
            upgrade: upgrade_slot,
            requests,
            permit: Arc::clone(&permit),
        };
        answer_requests(&shared, &service, connect_info, stream, was_asked).await;
        let Upgrade { transport, peer, purpose, agreed_at } = upgrade.lock().take()?;
        let Ok(parts) = transport.await.ok()?.downcast::<TokioIo<S>>() else {
            let (peer, reason) = (peer_name(address), "an upgraded connection came back as another type");
            tracing::error!(event = "bug", peer, reason, "{reason}: of {peer}");
            return None;
        };
        let mut stream = parts.io.into_inner();
        stream.upgraded();
        Some(match open::open(Arc::clone(&shared), stream, &parts.read_buf, peer, purpose, agreed_at) {
            open::Opened::Last(pump) => Opened::Last(pump),
            open::Opened::OfNode(pump) => Opened::OfNode(Box::pin(async move {
                let mut stream = pump.await?;
                stream.watch_again(&shared, &permit);
                let again = Self { shared, service, address, permit, nodes, was_asked: true };
                Some(again.speak_again(stream, scheme, certificate))
            })),
        })
    }

    /// Returns the first stage for the next request of another node. Boxed here, since [`speak_http`](Self::speak_http)
    /// leads to it again.
    fn speak_again<S>(self, stream: S, scheme: Scheme, certificate: Option<Arc<str>>) -> Opening
    where
        S: Transport,
    {
        let (shared, permit) = (Arc::clone(&self.shared), Arc::clone(&self.permit));
        interruptible(shared, permit, Box::pin(self.speak_http(stream, scheme, certificate)))
    }
}

/// The first stage of a connection. It resolves to the second, or to `None` where nothing was upgraded.
type Opening = Pin<Box<dyn Future<Output = Option<Opened>> + Send>>;

/// The second stage of a connection.
enum Opened {
    /// A WebSocket with which the connection ends.
    Last(open::BoxFuture),
    /// That of a client of another node. It resolves to the first stage again, in which that node may send a request.
    OfNode(Pin<Box<dyn Future<Output = Option<Opening>> + Send>>),
}

/// The task of one connection, in two stages.
///
/// Each stage is boxed by itself. The memory of the TLS handshake and of HTTP is freed before the WebSocket, which may
/// stay open for days, is served.
pub(super) struct ConnectionTask {
    /// The current stage.
    stage: Stage,
    /// The place of this connection among those that the limits allow.
    _permit: Arc<Permit>,
}

/// The stage of a connection.
enum Stage {
    /// TLS and HTTP.
    Opening(Opening),
    /// Notices the server's stop through its outbox.
    Open(Opened),
}

impl ConnectionTask {
    /// Starts the first stage.
    fn begin(shared: Arc<Shared>, permit: Arc<Permit>, open: Opening) -> Self {
        Self { stage: Stage::Opening(interruptible(shared, Arc::clone(&permit), open)), _permit: permit }
    }
}

/// A first stage that ends early if the connection is evicted in favour of newer ones or the server terminates.
fn interruptible(shared: Arc<Shared>, permit: Arc<Permit>, open: Opening) -> Opening {
    Box::pin(async move {
        tokio::select! {
            biased;
            () = permit.evicted() => None,
            opened = shared.unless_over(open) => opened.flatten(),
        }
    })
}

impl Future for ConnectionTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.stage {
                Stage::Opening(opening) => {
                    let Some(opened) = ready!(opening.as_mut().poll(cx)) else { return Poll::Ready(()) };
                    self.stage = Stage::Open(opened);
                }
                Stage::Open(Opened::Last(pump)) => return pump.as_mut().poll(cx),
                Stage::Open(Opened::OfNode(pump)) => {
                    let Some(opening) = ready!(pump.as_mut().poll(cx)) else { return Poll::Ready(()) };
                    self.stage = Stage::Opening(opening);
                }
            }
        }
    }
}

/// Answers HTTP requests until the connection ends or is upgraded.
async fn answer_requests<S>(
    shared: &Arc<Shared>,
    service: &Service,
    connect_info: ConnectInfo,
    stream: S,
    was_asked: bool,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = AtomicBool::new(was_asked);
    let service = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let connect_info = connect_info.clone();
        connect_info.permit.opened();
        async move { Ok::<_, Infallible>(service.answer(shared, connect_info, request).await) }
    });
    let mut connection = http_of(shared).serve_connection(TokioIo::new(stream), service).with_upgrades();
    let outcome = tokio::select! {
        outcome = &mut connection => outcome,
        () = stops(shared, &asked) => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    outcome.as_ref().err().inspect(|error| log_failure(connect_info.address, error));
    let is_http2 = outcome.as_ref().is_err_and(hyper::Error::is_parse_version_h2);
    let answered = outcome.map_or_else(|error| error.is_parse(), |()| true);
    if let (true, Some(parts)) = (answered, connection.into_parts()) {
        // Boxed: a connection that is upgraded needs no room for it.
        Box::pin(discard(shared, parts.io.into_inner(), is_http2)).await;
    }
}

/// HTTP/1.1 with the limits of the settings.
fn http_of(shared: &Arc<Shared>) -> http1::Builder {
    let settings = shared.settings();
    let limits = &settings.limits;
    let mut builder = http1::Builder::new();
    builder
        .timer(HyperTimer(Arc::clone(&shared.timers)))
        .header_read_timeout(limits.request_head_timeout)
        .max_headers(limits.max_headers)
        .max_buf_size(limits.max_request_head)
        // A proxy passes headers on as they were written.
        .preserve_header_case(settings.upstream.is_some())
        // A peer that has sent its last request may still read.
        .half_close(true)
        // Answers are short: copying them into one buffer costs less than a vectored write.
        .writev(false);
    builder
}

/// Ends a connection whose last answer is written: within `close_timeout`, or at once if the server stops.
async fn discard(shared: &Shared, stream: impl AsyncRead + AsyncWrite + Unpin, is_http2: bool) {
    tokio::select! {
        () = shared.stopping.cancelled() => {}
        _ = shared.timers.timeout(shared.settings().limits.close_timeout, end(shared, stream, is_http2)) => {}
    }
}

/// Waits until the server stops. A connection whose first request has not come yet has `goodbye_timeout` for it: a peer
/// that has connected just before the stop gets an answer.
async fn stops(shared: &Arc<Shared>, asked: &AtomicBool) {
    shared.stopping.cancelled().await;
    if !asked.load(Ordering::Relaxed) {
        shared.stopped_for_a_while().await;
    }
}

/// Logs that HTTP has ended with an error.
fn log_failure(address: Option<SocketAddr>, error: &hyper::Error) {
    let peer = peer_name(address);
    tracing::debug!(event = "http_failed", peer, reason = %error, "HTTP with {peer} ended: {error}");
}

/// Reads and discards input until the peer closes.
///
/// Closing a socket with unread input resets the connection. The peer would lose the answer that names its mistake. A
/// client that speaks HTTP/2 without negotiation (RFC 9113, 3.3) has no answer yet, and would wait for one.
async fn end(shared: &Shared, mut stream: impl AsyncRead + AsyncWrite + Unpin, is_http2: bool) {
    if is_http2 {
        shared.requests.count(RequestCounts::endpoint_of("*"), 505);
        if stream.write_all(service::HTTP2_REFUSAL.as_bytes()).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
    }
    let mut scratch = [0; 1024];
    while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::Request;
    use hyper::body::Incoming;
    use tokio::net::TcpStream;

    use crate::access::origin_policy::Scheme;
    use crate::server::connect_info::ConnectInfo;
    use crate::server::connection::Connection;
    use crate::server::http::service::Service;
    use crate::server::peer_stream::PeerStream;
    use crate::server::shared::Shared;

    /// The size of the result of a function, which need not be called for it.
    fn size_of_result<A, R>(_: impl FnOnce(A) -> R) -> usize {
        size_of::<R>()
    }

    #[test]
    fn new_connection_takes_no_memory_for_the_end_of_one_that_is_not_upgraded() {
        type Arguments = (Connection, PeerStream<TcpStream>);
        let size = size_of_result(|(connection, stream): Arguments| connection.speak_http(stream, Scheme::Http, None));
        // It is allocated and moved for each connection. It was 4 KiB with the buffer for input that is discarded.
        assert!(size <= 2048, "{size} bytes");
    }

    #[test]
    fn request_of_a_peer_takes_no_memory_for_endpoints_that_it_does_not_use() {
        type Arguments = (&'static Service, &'static Arc<Shared>, ConnectInfo, Request<Incoming>);
        let size = size_of_result(|(service, shared, by, request): Arguments| service.answer(shared, by, request));
        // hyper allocates and moves it for each connection. It was 7 KiB with the state of a request to another server.
        assert!(size <= 4096, "{size} bytes");
    }
}
