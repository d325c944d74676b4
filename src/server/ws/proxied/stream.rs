//! The connection to the server behind a proxy: TCP, or TLS over it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The bytes of an answer that are kept to tell what it is.
const KEPT: usize = 64;

/// The connection to the server.
pub(in crate::server) struct UpstreamStream {
    io: Io,
    /// The first bytes that the server has sent.
    first: Arc<Mutex<Vec<u8>>>,
}

/// The transport.
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl UpstreamStream {
    /// Wraps a TCP connection.
    pub(in crate::server) fn plain(stream: TcpStream) -> Self {
        Self { io: Io::Plain(stream), first: Arc::default() }
    }

    /// Wraps a TLS connection.
    pub(in crate::server) fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self { io: Io::Tls(Box::new(stream)), first: Arc::default() }
    }

    /// The first bytes that the server sends, as they come.
    pub(in crate::server) fn first(&self) -> Arc<Mutex<Vec<u8>>> {
        Arc::clone(&self.first)
    }

    /// Makes the drop send a RST and discard unsent data.
    pub(super) fn reset_on_close(&self) {
        let tcp = match &self.io {
            Io::Plain(stream) => stream,
            Io::Tls(stream) => stream.get_ref().0,
        };
        if let Err(error) = SockRef::from(tcp).set_linger(Some(Duration::ZERO)) {
            let what = "a connection cannot be reset, and ends as others do";
            tracing::warn!(event = "reset_failed", reason = %error, "{what}: {error}");
        }
    }
}

impl AsyncRead for UpstreamStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        let mut first = self.first.lock();
        if first.len() < KEPT {
            let room = KEPT - first.len();
            first.extend(buffer.filled()[before..].iter().take(room));
        }
        drop(first);
        read
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
