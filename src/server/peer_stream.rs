//! The byte stream of a connection, below TLS and HTTP. It notes each sign of life of the peer, and ends a write that
//! makes no progress.
//!
//! hyper has no timeout for writes: the answer to a peer that does not read would stay in memory forever. A WebSocket has
//! deadlines of its own, so the stream watches nothing after the upgrade.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::access::connection_limits::Permit;
use crate::observe::incidents::Incident;
use crate::server::settings::Settings;
use crate::server::shared::Shared;

/// The byte stream of a connection.
pub(super) struct PeerStream<S> {
    /// The socket, or the pipe of a test.
    inner: S,
    /// Watches the stream; `None` after the upgrade.
    watch: Option<Box<Watch>>,
}

/// Watches the stream of a connection that speaks TLS and HTTP.
struct Watch {
    /// The state that all connections share.
    shared: Arc<Shared>,
    /// The settings that the connection began with.
    settings: Arc<Settings>,
    /// Notes that the peer has sent or taken bytes.
    permit: Arc<Permit>,
    /// The write that the peer does not take.
    blocked: Option<BlockedWrite>,
}

/// A write that makes no progress.
struct BlockedWrite {
    /// The time of the first attempt, by the server's clock.
    since: Instant,
    /// The time that it may take.
    limit: Duration,
    /// Resolves when `limit` is over.
    expired: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<S> PeerStream<S> {
    /// Watches a stream.
    pub(super) fn new(inner: S, shared: &Arc<Shared>, permit: &Arc<Permit>) -> Self {
        let mut stream = Self { inner, watch: None };
        stream.watch(shared, permit);
        stream
    }

    /// Watches the stream from now on.
    pub(super) fn watch(&mut self, shared: &Arc<Shared>, permit: &Arc<Permit>) {
        let settings = shared.settings();
        let watch = Watch { shared: Arc::clone(shared), settings, permit: Arc::clone(permit), blocked: None };
        self.watch = Some(Box::new(watch));
    }

    /// The socket, or the pipe of a test.
    pub(super) fn inner(&self) -> &S {
        &self.inner
    }

    /// Stops watching: the connection has been upgraded.
    pub(super) fn upgraded(&mut self) {
        self.watch = None;
    }
}

impl Watch {
    /// The time that a write may make no progress: `write_timeout`, or `goodbye_timeout` if the server stops.
    fn limit(&self) -> Duration {
        let limits = &self.settings.limits;
        if self.shared.stopping.is_cancelled() {
            limits.write_timeout.min(limits.goodbye_timeout)
        } else {
            limits.write_timeout
        }
    }

    /// Notes that the peer has sent or taken bytes.
    fn heard(&self) {
        self.permit.heard(Instant::now());
    }

    /// Waits until a blocked write has taken too long.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit();
        let since = self.blocked.as_ref().map_or_else(|| self.shared.clock.now(), |blocked| blocked.since);
        if self.blocked.as_ref().is_none_or(|blocked| blocked.limit != limit) {
            let shared = Arc::clone(&self.shared);
            let expired = Box::pin(async move {
                match since.checked_add(limit) {
                    Some(due) => shared.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            });
            self.blocked = Some(BlockedWrite { since, limit, expired });
        }
        self.blocked.as_mut().map_or(Poll::Pending, |blocked| blocked.expired.as_mut().poll(cx))
    }

    /// Turns a write that has taken too long into an error.
    fn on_write(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(_) => {
                self.blocked = None;
                self.heard();
                written
            }
            Poll::Pending if self.poll_expired(cx).is_ready() => {
                self.shared.incidents.count(Incident::SlowConsumer);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read")))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PeerStream<S> {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(watch) = &this.watch else { return Pin::new(&mut this.inner).poll_read(cx, buffer) };
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            watch.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PeerStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        match &mut self.watch {
            Some(watch) => watch.on_write(cx, written),
            None => written,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        match &mut self.watch {
            Some(watch) => watch.on_write(cx, written),
            None => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
